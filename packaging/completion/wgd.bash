# bash completion for wgd.
# Made by `python -m wgd.manual DIRECTORY`: change it there.

_wgd() {
    local line=${COMP_LINE:0:COMP_POINT} current='' command='' expected='' word
    local -a words=() operands=()
    COMPREPLY=()
    read -ra words <<<"$line"
    if [[ $line != *[[:space:]] ]]; then
        current=${words[-1]}
        unset 'words[-1]'
    fi
    for word in "${words[@]:1}"; do
        if [[ $expected ]]; then
            expected=''
            continue
        fi
        case "$command $word" in
            ' --uapi-policy' | ' --uapi-dir' | ' --sandbox-bundle-id' | ' --dataplane' | ' --workers' | ' --config' | ' --user' | ' --metrics' | ' --metrics-group' | ' --keylog' | ' --log-format') expected="$command $word" ;;
            ' -'*) ;;
            *) operands+=("$word") ;;
        esac
    done
    if [[ ! $expected && $current == --*=* ]]; then
        expected="$command ${current%%=*}"
        current=${current#*=}
    fi
    case "$expected" in
        ' --uapi-policy')
            _wgd_words auto system sandbox off
            return
            ;;
        ' --uapi-dir')
            _wgd_files -d
            return
            ;;
        ' --sandbox-bundle-id') return ;;
        ' --dataplane')
            _wgd_words auto native portable
            return
            ;;
        ' --workers') return ;;
        ' --config')
            _wgd_files -f
            return
            ;;
        ' --user')
            _wgd_compgen -u
            return
            ;;
        ' --metrics')
            _wgd_words unix
            return
            ;;
        ' --metrics-group')
            _wgd_compgen -g
            return
            ;;
        ' --keylog')
            _wgd_files -f
            return
            ;;
        ' --log-format')
            _wgd_words text json
            return
            ;;
        ?*) return ;;
    esac
    if [[ $current == -* ]]; then
        case "$command" in
            '')
                _wgd_words -h --help -f --foreground --uapi-policy --uapi-dir --sandbox-bundle-id --dataplane --workers --no-offload --config --user --metrics --metrics-group --keylog --log-format --version
                return
                ;;
        esac
    fi
    case "$command ${#operands[@]}" in
        ' 0') _wgd_names ;;
    esac
}

_wgd_words() {
    local word
    for word; do
        [[ $word != "$current"* ]] || COMPREPLY+=("$word")
    done
}

_wgd_compgen() {
    local -a found
    mapfile -t found < <(compgen "$@" -- "$current")
    COMPREPLY+=("${found[@]}")
}

_wgd_files() {
    compopt -o filenames 2>/dev/null
    _wgd_compgen "$@"
}

_wgd_names() {
    local path
    for path in /etc/wireguard/*.conf; do
        [[ ! -e $path ]] || { path=${path##*/} && _wgd_words "${path%.conf}"; }
    done
}

_wgd_interfaces() {
    local -a found
    read -ra found < <(wgdctl show interfaces 2>/dev/null)
    _wgd_words "${found[@]}"
}

_wgd_peers() {
    local -a found
    mapfile -t found < <(wgdctl show "${operands[0]}" peers 2>/dev/null)
    _wgd_words "${found[@]}"
}

complete -F _wgd wgd
