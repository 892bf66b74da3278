# bash completion for limeload-l4: what is offered comes from the program itself.

_limeload_l4() {
	local line=${COMP_LINE:0:COMP_POINT} words=() i word
	# bash splits words at "=" and ":", too; what stands together in the line is one word.
	for ((i = 0; i <= COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		((i == COMP_CWORD)) && word=${line#"${line%%[![:space:]]*}"} # up to the cursor
		if ((i == 0)) || [[ $line == [[:space:]]* ]]; then
			line=${line#"${line%%[![:space:]]*}"}
			words+=("$word")
		else
			words[-1]+=$word
		fi
		line=${line#"$word"}
	done
	local current=${words[-1]} answer
	answer=$("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
	COMPREPLY=()
	if [[ $answer == :files ]]; then
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "${current#--*=}")
		return
	fi
	# Readline replaces only what stands behind the last character it splits at.
	local known=${current%"${current##*[=:]}"}
	[[ $COMP_WORDBREAKS == *:* ]] || known=${current%"${current##*=}"}
	while IFS=$'\t' read -r word _; do
		[[ -n $word ]] && COMPREPLY+=("${word#"$known"}")
	done <<<"$answer"
}

complete -F _limeload_l4 limeload-l4
