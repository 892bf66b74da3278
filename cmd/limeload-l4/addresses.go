package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// addressList returns the addresses of a listener as one text. Consecutive ports of one host are a range in it, as in
// the file.
func addressList(addresses []string) string {
	var texts []string
	for i := 0; i < len(addresses); {
		n := consecutive(addresses[i:])
		text := addresses[i]
		if n > 1 {
			last, _ := netip.ParseAddrPort(addresses[i+n-1])
			text = fmt.Sprintf("%s-%d", text, last.Port())
		}
		texts = append(texts, text)
		i += n
	}
	return strings.Join(texts, " ")
}

// consecutive returns how many of the addresses, from the first on, have its host and consecutive ports.
func consecutive(addresses []string) int {
	first, err := netip.ParseAddrPort(addresses[0])
	n := 1
	for ; err == nil && n < len(addresses); n++ {
		next, e := netip.ParseAddrPort(addresses[n])
		if e != nil || next.Addr() != first.Addr() || int(next.Port()) != int(first.Port())+n {
			break
		}
	}
	return n
}
