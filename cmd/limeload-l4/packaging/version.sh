#!/bin/sh
# Prints the version of this checkout, without a "v", as packages and the program have it:
#
#   1.2.3                                the commit with the tag v1.2.3; v1.3.0-rc.1 is 1.3.0-rc.1
#   1.2.3+5.g0f0a818c3d21                5 commits later
#   0.0.0+20261130002844.g0f0a818c3d21   a checkout without such tags: the time and the commit
#
# ".dirty" is added where tracked files differ from the commit. It prints nothing outside a git checkout. Each version
# is higher than those of the commits before it, for dpkg and for rpm.
described=$(git describe --tags --match 'v[0-9]*' --long --abbrev=12 2>/dev/null)
if [ -n "$described" ]; then
	commit=${described##*-} # TAG-COUNT-gCOMMIT
	described=${described%-*}
	count=${described##*-}
	tag=${described%-*}
	version=${tag#v}
	[ "$count" = 0 ] || version=$version+$count.$commit
else
	commit=$(git rev-parse --short=12 HEAD 2>/dev/null) || exit 0
	version=0.0.0+$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y%m%d%H%M%S).g$commit
fi
if ! git diff --quiet HEAD -- 2>/dev/null; then
	case $version in
	*+*) version=$version.dirty ;;
	*) version=$version+dirty ;;
	esac
fi
echo "$version"
