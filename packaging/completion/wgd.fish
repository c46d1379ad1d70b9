# fish completion for wgd.
# Made by `python -m wgd.manual DIRECTORY`: change it there.

# The words before the current one, without options and their values.
function __wgd_words
    set -l tokens (commandline -opc)
    set -l skips no
    set -l command
    for token in $tokens[2..]
        if test $skips = yes
            set skips no
            continue
        end
        switch "$command $token"
            case ' --uapi-policy' ' --uapi-dir' ' --sandbox-bundle-id' ' --dataplane' ' --workers' ' --config' ' --user' ' --metrics' ' --metrics-group' ' --keylog' ' --log-format'
                set skips yes
            case ' -*'
            case '*'
                
                printf '%s\n' $token
        end
    end
end

# __wgd_at COMMAND NUMBER: so many operands of the command come before.
function __wgd_at
    set -l words (__wgd_words)
    test (count $words) -eq $argv[2]; and test "$words[1]" = "$argv[1]"
end

function __wgd_in
    set -l words (__wgd_words)
    test "$words[1]" = "$argv[1]"
end

# __wgd_after COMMAND WORD…: one of the words comes just before.
function __wgd_after
    set -l words (__wgd_words)
    test (count $words) -ge 2
    and test "$words[1]" = "$argv[1]"
    and contains -- $words[-1] $argv[2..]
end

function __wgd_names
    for path in /etc/wireguard/*.conf
        string replace -r '.*/(.*)\.conf$' '$1' $path
    end
end

function __wgd_files
    __fish_complete_path (commandline -ct) | string match -r '.*(?:/|\.conf)(?=	|$)'
end

function __wgd_interfaces
    wgdctl show interfaces 2>/dev/null | string split ' '
end

function __wgd_peers
    set -l words (__wgd_words)
    wgdctl show $words[2] peers 2>/dev/null
end

complete -c wgd -f
complete -c wgd -s h -l help -d 'show this help message and exit'
complete -c wgd -s f -l foreground -d 'stay in the foreground and log to stdout'
complete -c wgd -l uapi-policy -x -a 'auto system sandbox off' -d 'where the UAPI socket goes: the system\'s directory, the macOS sandbox\'s container that HOME is in, whichever of the two fits (auto, the default), or nowhere (off)'
complete -c wgd -l uapi-dir -x -a '(__fish_complete_directories (commandline -ct))' -d 'put the UAPI socket into this directory'
complete -c wgd -l sandbox-bundle-id -x -d 'whose container counts as the sandbox; may be repeated (default: com.wireguard.macos.network-extension)'
complete -c wgd -l dataplane -x -a 'auto native portable' -d 'what moves the packets: the native engine (package wgd-native, Linux), the portable one, or native where that is installed (auto, the default)'
complete -c wgd -l workers -x -d 'native: use this many threads in each direction, for as many cores (default: 1)'
complete -c wgd -l no-offload -d 'never let the kernel join or cut packets (GSO, GRO), should its driver fail at it'
complete -c wgd -l config -x -a '(__fish_complete_path (commandline -ct))' -d 'configure the interface as `wgdctl up FILE` does, and undo it at the end'
complete -c wgd -l user -x -a '(__fish_complete_users)' -d 'go on as this user when everything is open, keeping three network capabilities'
complete -c wgd -l metrics -x -a 'unix' -d 'serve Prometheus metrics and the status of the peers: HOST:PORT, or unix:PATH, or unix for /run/wgd/INTERFACE.sock'
complete -c wgd -l metrics-group -x -a '(__fish_complete_groups)' -d 'who may connect to the unix socket of --metrics (default: root only)'
complete -c wgd -l keylog -x -a '(__fish_complete_path (commandline -ct))' -d 'append the keys of every handshake to FILE, for Wireshark: whoever has it can read all that was sent'
complete -c wgd -l log-format -x -a 'text json' -d 'one event a line, as key=value (text, the default) or as a JSON object'
complete -c wgd -l version -d 'show program\'s version number and exit'
complete -c wgd -n 'test (count (__wgd_words)) -eq 0' -a '(__wgd_names)' -d 'INTERFACE'
