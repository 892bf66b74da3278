# fish completion for limeload-l4: what is offered comes from the program itself.

function __limeload_l4_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l answer ($words[1] __complete -- $words[2..-1] "$current" 2>/dev/null)
    if test "$answer[1]" = :files
        set -l before (string match -r '^--[^=]*=' -- $current)
        for path in (__fish_complete_path (string replace -r '^--[^=]*=' '' -- $current))
            echo "$before$path"
        end
        return
    end
    printf '%s\n' $answer
end

complete -c limeload-l4 -f -a '(__limeload_l4_complete)'
