# fish completion for wgdctl.
# Made by `python -m wgd.manual DIRECTORY`: change it there.

# The words before the current one, without options and their values.
function __wgdctl_words
    set -l tokens (commandline -opc)
    set -l skips no
    set -l command
    for token in $tokens[2..]
        if test $skips = yes
            set skips no
            continue
        end
        switch "$command $token"
            case ' --uapi-dir' ' --sandbox-bundle-id' 'doctor --config' 'top --interval'
                set skips yes
            case ' -*' 'show -*' 'doctor -*' 'top -*'
            case '*'
                test -n "$command"; or set command $token
                printf '%s\n' $token
        end
    end
end

# __wgdctl_at COMMAND NUMBER: so many operands of the command come before.
function __wgdctl_at
    set -l words (__wgdctl_words)
    test (count $words) -eq $argv[2]; and test "$words[1]" = "$argv[1]"
end

function __wgdctl_in
    set -l words (__wgdctl_words)
    test "$words[1]" = "$argv[1]"
end

# __wgdctl_after COMMAND WORD…: one of the words comes just before.
function __wgdctl_after
    set -l words (__wgdctl_words)
    test (count $words) -ge 2
    and test "$words[1]" = "$argv[1]"
    and contains -- $words[-1] $argv[2..]
end

function __wgdctl_names
    for path in /etc/wireguard/*.conf
        string replace -r '.*/(.*)\.conf$' '$1' $path
    end
end

function __wgdctl_files
    __fish_complete_path (commandline -ct) | string match -r '.*(?:/|\.conf)(?=	|$)'
end

function __wgdctl_interfaces
    wgdctl show interfaces 2>/dev/null | string split ' '
end

function __wgdctl_peers
    set -l words (__wgdctl_words)
    wgdctl show $words[2] peers 2>/dev/null
end

complete -c wgdctl -f
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -l uapi-dir -x -a '(__fish_complete_directories (commandline -ct))' -d 'look in DIR before everywhere else'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -l sandbox-bundle-id -x -d 'look in the macOS container of ID (repeatable; default: the WireGuard app\'s)'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -s h -l help -d 'show how to use wgdctl, or after a subcommand that one'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -s v -l version -d 'show the version'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'show' -d 'show devices and their peers (the default)'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'showconf' -d 'show a device as a configuration file for setconf'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'set' -d 'change a device and its peers'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'setconf' -d 'make a device what a configuration file says'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'addconf' -d 'add a configuration file to a device'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'syncconf' -d 'as setconf, without disturbing the peers that stay the same'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'genkey' -d 'print a new private key'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'genpsk' -d 'print a new preshared key'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'pubkey' -d 'print the public key of the private key on stdin'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'where' -d 'say where devices are looked for, and what was left out'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'doctor' -d 'say what is wrong with a device and what to try (exit status 2: problems)'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'up' -d 'make an interface from its file, as wg-quick(8) does, always on wgd'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'down' -d 'undo what up did'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'save' -d 'write the file of an interface anew from what it is now'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'strip' -d 'print the lines of a file that are for setconf'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'top' -d 'show peers live, with rates and what is wrong; or with --once one table'
complete -c wgdctl -n 'test (count (__wgdctl_words)) -eq 0' -a 'log-level' -d 'show or change how much a running wgd logs'
complete -c wgdctl -n '__wgdctl_in show' -l json -d 'print JSON, for programs'
complete -c wgdctl -n '__wgdctl_at show 1' -a '(__wgdctl_interfaces) all interfaces' -d 'interface'
complete -c wgdctl -n '__wgdctl_at show 2' -a 'public-key private-key listen-port fwmark peers preshared-keys endpoints allowed-ips latest-handshakes transfer persistent-keepalive dump' -d 'field'
complete -c wgdctl -n '__wgdctl_at showconf 1' -a '(__wgdctl_interfaces)' -d 'interface'
complete -c wgdctl -n '__wgdctl_at set 1' -a '(__wgdctl_interfaces)' -d 'interface'
complete -c wgdctl -n '__wgdctl_after set private-key' -a '(__fish_complete_path (commandline -ct))' -d 'file path'
complete -c wgdctl -n '__wgdctl_after set peer' -a '(__wgdctl_peers)' -d 'base64 public key'
complete -c wgdctl -n '__wgdctl_after set preshared-key' -a '(__fish_complete_path (commandline -ct))' -d 'file path'
complete -c wgdctl -n '__wgdctl_in set; and test (count (__wgdctl_words)) -ge 2; and not __wgdctl_after set listen-port fwmark private-key peer preshared-key endpoint persistent-keepalive allowed-ips; and contains peer (__wgdctl_words)' -a 'peer remove preshared-key endpoint persistent-keepalive allowed-ips'
complete -c wgdctl -n '__wgdctl_in set; and test (count (__wgdctl_words)) -ge 2; and not __wgdctl_after set listen-port fwmark private-key peer preshared-key endpoint persistent-keepalive allowed-ips; and not contains peer (__wgdctl_words)' -a 'listen-port fwmark private-key peer'
complete -c wgdctl -n '__wgdctl_at setconf 1' -a '(__wgdctl_interfaces)' -d 'interface'
complete -c wgdctl -n '__wgdctl_at setconf 2' -a '(__fish_complete_path (commandline -ct))' -d 'configuration filename'
complete -c wgdctl -n '__wgdctl_at addconf 1' -a '(__wgdctl_interfaces)' -d 'interface'
complete -c wgdctl -n '__wgdctl_at addconf 2' -a '(__fish_complete_path (commandline -ct))' -d 'configuration filename'
complete -c wgdctl -n '__wgdctl_at syncconf 1' -a '(__wgdctl_interfaces)' -d 'interface'
complete -c wgdctl -n '__wgdctl_at syncconf 2' -a '(__fish_complete_path (commandline -ct))' -d 'configuration filename'
complete -c wgdctl -n '__wgdctl_in doctor' -l json -d 'print JSON, for programs'
complete -c wgdctl -n '__wgdctl_in doctor' -l no-probe -d 'send no packet and look up no name'
complete -c wgdctl -n '__wgdctl_in doctor' -l config -x -a '(__fish_complete_path (commandline -ct))' -d 'compare the device with this file (default: /etc/wireguard/INTERFACE.conf)'
complete -c wgdctl -n '__wgdctl_at doctor 1' -a '(__wgdctl_interfaces)' -d 'interface'
complete -c wgdctl -n '__wgdctl_at up 1' -a '(__wgdctl_names) (__wgdctl_files)' -d 'wg-quick configuration filename'
complete -c wgdctl -n '__wgdctl_at down 1' -a '(__wgdctl_names) (__wgdctl_files)' -d 'wg-quick configuration filename'
complete -c wgdctl -n '__wgdctl_at save 1' -a '(__wgdctl_names) (__wgdctl_files)' -d 'wg-quick configuration filename'
complete -c wgdctl -n '__wgdctl_at strip 1' -a '(__wgdctl_names) (__wgdctl_files)' -d 'wg-quick configuration filename'
complete -c wgdctl -n '__wgdctl_in top' -l once -d 'print one table and end; for scripts, and without a terminal'
complete -c wgdctl -n '__wgdctl_in top' -l interval -x -d 'look again after so many seconds, from 0.1 to 3600 (default: 1)'
complete -c wgdctl -n '__wgdctl_in top' -a '(__wgdctl_interfaces)' -d 'interface'
complete -c wgdctl -n '__wgdctl_at log-level 1' -a '(__wgdctl_interfaces)' -d 'interface'
complete -c wgdctl -n '__wgdctl_at log-level 2' -a 'verbose info error silent' -d 'level'
