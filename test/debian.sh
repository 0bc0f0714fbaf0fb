# What the scripts share that get things from Debian; they source this file.
# shellcheck shell=bash
unset CDPATH
build=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/build

die() { echo "$0: $*" >&2; exit 1; }

# For what this machine lacks or does not allow; .ci/run goes on without it.
unable() { echo "$0: $*" >&2; exit 77; }

# Whether as_root can work.  Asks for sudo's password where somebody is there to
# give it; sudo itself then says why not, once.
can_be_root() {
	[ "$(id -u)" = 0 ] || {
		command -v sudo >/dev/null &&
			{ sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; }
	}
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		return 1
	fi
}

# need COMMAND=PACKAGE...: installs the packages whose command is missing.
# A COMMAND with a slash is a file.
need() {
	local pair packages=()
	for pair in "$@"; do
		case ${pair%%=*} in
			*/*) [ -e "${pair%%=*}" ] || packages+=("${pair#*=}") ;;
			*) command -v "${pair%%=*}" >/dev/null || packages+=("${pair#*=}") ;;
		esac
	done
	[ ${#packages[@]} -gt 0 ] || return 0
	command -v apt-get >/dev/null ||
		unable "missing: ${packages[*]}; install them, this is not Debian"
	can_be_root ||
		unable "missing: ${packages[*]}; install them, or run this as root or with sudo"
	echo "$0: installing ${packages[*]}" >&2
	as_root apt-get -qq update >&2 || true
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends "${packages[@]}" >&2 ||
		unable "could not install ${packages[*]}"
}

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The Debian mirror of this machine, as apt reads its own configuration.
debian_mirror() {
	apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
		awk '!found && ($1 == "Debian" || $NF ~ /\/debian\/?$/) { print $NF; found = 1 }
			END { exit !found }' || unable "apt of this machine knows no mirror of Debian"
}

# debian_apt SUITE COMMAND...: an apt command that knows the packages and
# sources of this suite and no others.  It leaves the machine's apt alone: all
# that it keeps is in build/apt.
debian_apt() {
	local suite=$1 folder=$build/apt/$1 type mirror
	shift
	if [ ! -f "$folder/apt.conf" ]; then
		need "$debian_keyring=debian-archive-keyring"
		mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
		: >"$folder/status"
		mirror=$(debian_mirror) || exit
		for type in deb deb-src; do
			echo "$type [signed-by=$debian_keyring] $mirror $suite main"
		done >"$folder/sources.list"
		cat >"$folder/new.conf" <<-CONF
			Dir::Etc::SourceList "$folder/sources.list";
			Dir::Etc::SourceParts "/dev/null";
			Dir::State "$folder";
			Dir::State::Lists "$folder/lists";
			Dir::State::status "$folder/status";
			Dir::Cache "$folder/cache";
			APT::Sandbox::User "";
			Acquire::Languages "none";
		CONF
		APT_CONFIG=$folder/new.conf apt-get -qq update -o APT::Update::Error-Mode=any >&2 ||
			unable "could not read the list of Debian's packages"
		mv "$folder/new.conf" "$folder/apt.conf"
	fi
	APT_CONFIG=$folder/apt.conf "$@"
}

# debian_package SUITE PACKAGE: downloads and unpacks a package, and prints
# the folder.
debian_package() { unpacked package "$@" apt-get -qq download; }

# debian_source SUITE PACKAGE: the same for the authors' sources, without
# Debian's patches.
debian_source() { unpacked source "$@" apt-get -qq source --download-only; }

unpacked() {
	local kind=$1 suite=$2 package=$3 folder=$build/$1/$3
	shift 3
	if [ ! -d "$folder" ]; then
		need bzip2=bzip2 xz=xz-utils
		rm -rf "$folder.new"
		mkdir -p "$folder.new/tree"
		(
			cd "$folder.new" || exit
			debian_apt "$suite" "$@" "$package" >&2 ||
				unable "could not get $kind $package of $suite"
			case $kind in
				package) dpkg-deb -x ./*.deb tree ;;
				source) tar -xf ./*.orig.tar.* -C tree --strip-components=1 ;;
			esac
		) || exit
		mv "$folder.new" "$folder"
	fi
	echo "$folder/tree"
}
