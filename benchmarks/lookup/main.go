// Times wireguard-go's table of allowed IPs; native/engine/examples/lookup.rs does the same with wgd's.
//
// Arguments: the family, 4 or 6; how many prefixes; a seed. It prints nanoseconds per prefix put in
// and per address looked up.
package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

const (
	peers   = 100
	lookups = 1 << 20
)

// splitmix64, so that both programs see the same addresses.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// The first of so many bits are those of `like`, the others are random.
func (r *random) address(like []byte, length int) []byte {
	var bits [16]byte
	binary.BigEndian.PutUint64(bits[:8], r.next())
	binary.BigEndian.PutUint64(bits[8:], r.next())
	address := bits[:len(like)]
	for bit := range length {
		mask := byte(0x80) >> (bit % 8)
		address[bit/8] = address[bit/8]&^mask | like[bit/8]&mask
	}
	return address
}

func main() {
	family, count, seed := number(1), number(2), number(3)
	size, shortest := 4, 16
	if family == 6 {
		size, shortest = 16, 32
	}
	r := random(seed)
	owners := make([]*device.Peer, peers)
	for i := range owners {
		owners[i] = new(device.Peer)
	}
	prefixes := make([]netip.Prefix, count)
	for i := range prefixes {
		address, _ := netip.AddrFromSlice(r.address(make([]byte, size), 0))
		length := shortest + int(r.next()%uint64(size*8-shortest+1))
		prefixes[i] = netip.PrefixFrom(address, length).Masked()
	}
	var table device.AllowedIPs
	started := time.Now()
	for i, prefix := range prefixes {
		table.Insert(prefix, owners[i%peers])
	}
	inserted := time.Since(started)
	addresses := make([]byte, 0, lookups*size)
	for range lookups {
		prefix := prefixes[r.next()%uint64(count)]
		addresses = append(addresses, r.address(prefix.Addr().AsSlice(), prefix.Bits())...)
	}
	runtime.GC()
	found := 0
	started = time.Now()
	for at := 0; at < len(addresses); at += size {
		if table.Lookup(addresses[at:at+size]) != nil {
			found++
		}
	}
	looked := time.Since(started)
	if found != lookups {
		panic("an address was not found")
	}
	fmt.Printf("%.1f %.1f\n", per(inserted, count), per(looked, lookups))
}

func number(position int) int {
	value, err := strconv.Atoi(os.Args[position])
	if err != nil {
		panic(err)
	}
	return value
}

func per(all time.Duration, count int) float64 {
	return float64(all.Nanoseconds()) / float64(count)
}
