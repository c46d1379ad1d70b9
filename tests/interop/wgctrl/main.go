// Command wgctrl shows and configures devices through wgctrl-go, for test_wgctrl.py.
//
//	wgctrl devices            the names of all devices, one per line
//	wgctrl dump NAME          what `wg show NAME dump` prints
//	wgctrl set NAME FLAGS…    one ConfigureDevice; flags after -peer are about that peer
//
// An error goes to stderr, with exit code 1.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	client, err := wgctrl.New()
	if err != nil {
		return err
	}
	defer client.Close()
	switch {
	case len(arguments) == 1 && arguments[0] == "devices":
		return devices(client)
	case len(arguments) == 2 && arguments[0] == "dump":
		return dump(client, arguments[1])
	case len(arguments) > 2 && arguments[0] == "set":
		return set(client, arguments[1], arguments[2:])
	}
	return fmt.Errorf("not understood: %q", arguments)
}

func devices(client *wgctrl.Client) error {
	all, err := client.Devices()
	if err != nil {
		return err
	}
	for _, device := range all {
		fmt.Println(device.Name)
	}
	return nil
}

func dump(client *wgctrl.Client, name string) error {
	device, err := client.Device(name)
	if err != nil {
		return err
	}
	printRow(keyOrNone(device.PrivateKey), keyOrNone(device.PublicKey), device.ListenPort,
		textOr("off", device.FirewallMark != 0, fmt.Sprintf("%#x", device.FirewallMark)))
	for _, peer := range device.Peers {
		var prefixes []string
		for _, prefix := range peer.AllowedIPs {
			prefixes = append(prefixes, prefix.String())
		}
		var handshake int64
		if !peer.LastHandshakeTime.IsZero() {
			handshake = peer.LastHandshakeTime.Unix()
		}
		keepalive := int(peer.PersistentKeepaliveInterval / time.Second)
		printRow(peer.PublicKey, keyOrNone(peer.PresharedKey),
			textOr("(none)", peer.Endpoint != nil, peer.Endpoint.String()),
			textOr("(none)", len(prefixes) > 0, strings.Join(prefixes, ",")),
			handshake, peer.ReceiveBytes, peer.TransmitBytes,
			textOr("off", keepalive != 0, fmt.Sprint(keepalive)))
	}
	return nil
}

func set(client *wgctrl.Client, name string, arguments []string) error {
	var config wgtypes.Config
	peer := func() *wgtypes.PeerConfig { return &config.Peers[len(config.Peers)-1] }
	flags := flag.NewFlagSet("set", flag.ContinueOnError)
	flags.Func("listen-port", "PORT", func(text string) error {
		config.ListenPort = new(int)
		_, err := fmt.Sscan(text, config.ListenPort)
		return err
	})
	flags.Func("peer", "KEY", func(text string) error {
		key, err := wgtypes.ParseKey(text)
		config.Peers = append(config.Peers, wgtypes.PeerConfig{PublicKey: key})
		return err
	})
	flags.Func("endpoint", "ADDRESS:PORT", func(text string) (err error) {
		peer().Endpoint, err = net.ResolveUDPAddr("udp", text)
		return err
	})
	flags.Func("keepalive", "DURATION", func(text string) error {
		interval, err := time.ParseDuration(text)
		peer().PersistentKeepaliveInterval = &interval
		return err
	})
	flags.Func("allowed-ip", "PREFIX", func(text string) error {
		_, prefix, err := net.ParseCIDR(text)
		if err == nil {
			peer().AllowedIPs = append(peer().AllowedIPs, *prefix)
		}
		return err
	})
	flags.Func("how", "remove, update-only or replace-allowed-ips", func(text string) error {
		peer().Remove = text == "remove"
		peer().UpdateOnly = text == "update-only"
		peer().ReplaceAllowedIPs = text == "replace-allowed-ips"
		return nil
	})
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	return client.ConfigureDevice(name, config)
}

func printRow(columns ...interface{}) {
	texts := make([]string, len(columns))
	for i, column := range columns {
		texts[i] = fmt.Sprint(column)
	}
	fmt.Println(strings.Join(texts, "\t"))
}

func keyOrNone(key wgtypes.Key) string {
	return textOr("(none)", key != wgtypes.Key{}, key.String())
}

func textOr(absent string, isPresent bool, text string) string {
	if isPresent {
		return text
	}
	return absent
}
