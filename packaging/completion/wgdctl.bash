# bash completion for wgdctl.
# Made by `python -m wgd.manual DIRECTORY`: change it there.

_wgdctl() {
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
            ' --uapi-dir' | ' --sandbox-bundle-id' | 'doctor --config' | 'top --interval') expected="$command $word" ;;
            ' -'* | 'show -'* | 'doctor -'* | 'top -'*) ;;
            ' '*) command=$word ;;
            *) operands+=("$word") ;;
        esac
    done
    if [[ ! $expected && $current == --*=* ]]; then
        expected="$command ${current%%=*}"
        current=${current#*=}
    fi
    case "$expected" in
        ' --uapi-dir')
            _wgdctl_files -d
            return
            ;;
        ' --sandbox-bundle-id') return ;;
        'doctor --config')
            _wgdctl_files -f
            return
            ;;
        'top --interval') return ;;
        ?*) return ;;
    esac
    if [[ $current == -* ]]; then
        case "$command" in
            '')
                _wgdctl_words --uapi-dir --sandbox-bundle-id -h --help -v --version
                return
                ;;
            'show')
                _wgdctl_words --json
                return
                ;;
            'doctor')
                _wgdctl_words --json --no-probe --config
                return
                ;;
            'top')
                _wgdctl_words --once --interval
                return
                ;;
        esac
    fi
    if [[ ! $command ]]; then
        _wgdctl_words show showconf set setconf addconf syncconf genkey genpsk pubkey where doctor up down save strip top log-level
        return
    fi
    case "$command ${#operands[@]}" in
        'show 0')
            _wgdctl_interfaces
            _wgdctl_words all interfaces
            ;;
        'show 1') _wgdctl_words public-key private-key listen-port fwmark peers preshared-keys endpoints allowed-ips latest-handshakes transfer persistent-keepalive dump ;;
        'showconf 0') _wgdctl_interfaces ;;
        'set 0') _wgdctl_interfaces ;;
        'set '*)
            case "${operands[-1]}" in
                listen-port) ;;
                fwmark) ;;
                private-key) _wgdctl_files -f ;;
                peer) _wgdctl_peers ;;
                preshared-key) _wgdctl_files -f ;;
                endpoint) ;;
                persistent-keepalive) ;;
                allowed-ips) ;;
                *)
                    if [[ " ${operands[*]} " == *' peer '* ]]; then
                        _wgdctl_words peer remove preshared-key endpoint persistent-keepalive allowed-ips
                    else
                        _wgdctl_words listen-port fwmark private-key peer
                    fi
                    ;;
            esac
            ;;
        'setconf 0') _wgdctl_interfaces ;;
        'setconf 1') _wgdctl_files -f ;;
        'addconf 0') _wgdctl_interfaces ;;
        'addconf 1') _wgdctl_files -f ;;
        'syncconf 0') _wgdctl_interfaces ;;
        'syncconf 1') _wgdctl_files -f ;;
        'doctor 0') _wgdctl_interfaces ;;
        'up 0')
            _wgdctl_names
            _wgdctl_files -d
            _wgdctl_files -f -X '!*.conf'
            ;;
        'down 0')
            _wgdctl_names
            _wgdctl_files -d
            _wgdctl_files -f -X '!*.conf'
            ;;
        'save 0')
            _wgdctl_names
            _wgdctl_files -d
            _wgdctl_files -f -X '!*.conf'
            ;;
        'strip 0')
            _wgdctl_names
            _wgdctl_files -d
            _wgdctl_files -f -X '!*.conf'
            ;;
        'top '*) _wgdctl_interfaces ;;
        'log-level 0') _wgdctl_interfaces ;;
        'log-level 1') _wgdctl_words verbose info error silent ;;
    esac
}

_wgdctl_words() {
    local word
    for word; do
        [[ $word != "$current"* ]] || COMPREPLY+=("$word")
    done
}

_wgdctl_compgen() {
    local -a found
    mapfile -t found < <(compgen "$@" -- "$current")
    COMPREPLY+=("${found[@]}")
}

_wgdctl_files() {
    compopt -o filenames 2>/dev/null
    _wgdctl_compgen "$@"
}

_wgdctl_names() {
    local path
    for path in /etc/wireguard/*.conf; do
        [[ ! -e $path ]] || { path=${path##*/} && _wgdctl_words "${path%.conf}"; }
    done
}

_wgdctl_interfaces() {
    local -a found
    read -ra found < <(wgdctl show interfaces 2>/dev/null)
    _wgdctl_words "${found[@]}"
}

_wgdctl_peers() {
    local -a found
    mapfile -t found < <(wgdctl show "${operands[0]}" peers 2>/dev/null)
    _wgdctl_words "${found[@]}"
}

complete -F _wgdctl wgdctl
