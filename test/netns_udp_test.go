//go:build netns

package test

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestNetnsUDPAddresses asks a wildcard listener over a cable, at two addresses of each IP version. The client's socket
// is connected, so it accepts answers only from the address that it asked.
func TestNetnsUDPAddresses(t *testing.T) {
	f := connectFar(t)
	const second, first6, second6 = "10.77.0.3", "fd77::1", "fd77::3"
	ip(t, "address", "add", second+"/24", "dev", "here")
	for _, address := range []string{first6, second6} {
		// nodad: usable at once, without duplicate address detection
		ip(t, "address", "add", address+"/64", "dev", "here", "nodad")
	}
	f.ip(t, "address", "add", "fd77::2/64", "dev", "there", "nodad")
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	for _, listen := range []string{":%d", "0.0.0.0:%d", "[::]:%d"} {
		t.Run(listen, func(t *testing.T) {
			port := harness.FreePort(t)
			b := world{Listen: fmt.Sprintf(listen, port), Backends: []string{backend.Address()}}.startUDP(t)
			var asked int
			for _, address := range []string{here, second, first6, second6} {
				if six := net.ParseIP(address).To4() == nil; listen != ":%d" && six != (listen == "[::]:%d") {
					continue
				}
				asked++
				if got := f.askUDP(t, address, port, "asked at "+address); got != "asked at "+address {
					t.Errorf("%s answered %q", address, got)
				}
			}
			if l := udpFigures(t, b); l.DatagramsOut != uint64(asked) {
				t.Errorf("%d questions: %+v", asked, l)
			}
		})
	}
}

// askUDP asks from the far end, through the shell's connected socket, and returns the answer, "" if none came.
func (f far) askUDP(t *testing.T, address string, port int, question string) string {
	t.Helper()
	script := `exec 3<>"/dev/udp/$1/$2" && printf %s "$3" >&3 && timeout "$4" dd bs=65536 count=1 status=none <&3`
	stdout, _, _ := harness.Run(t, harness.Command{Path: harness.Tool(t, "nsenter"), Args: []string{
		"--target", strconv.Itoa(f.PID()), "--net", harness.Tool(t, "bash"), "-c", script,
		"ask", address, strconv.Itoa(port), question, strconv.Itoa(int(harness.Patience.Seconds()) / 2),
	}})
	return stdout
}
