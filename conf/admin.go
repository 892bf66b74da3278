package conf

import (
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultAdminAddress is the default of the admin address. If the file does not set another one, a balancer that may
// not create this socket serves without it.
const DefaultAdminAddress = "unix:/run/limeload/admin.sock"

// maxSocketPath is the longest path in struct sockaddr_un, without the closing zero (unix(7)).
const maxSocketPath = 107

// Admin has the address of the control API. Its zero value is off.
type Admin struct {
	Address    string `toml:"address" default:"unix:/run/limeload/admin.sock"` // "" is off; see Socket, Bind
	SocketMode string `toml:"socket_mode" default:"0660"`                      // see Mode
	// a path; "" only with a Unix socket or a loopback address
	TokenFile string `toml:"token_file" default:""`

	// Parse fills these from the texts above.
	Socket string         // the path of a Unix socket; "" if Address is none
	Bind   netip.AddrPort // not valid unless Address is HOST:PORT
	Mode   fs.FileMode    // of Socket: its permission bits
}

// validateAdmin reports what is wrong with a beyond single values, and fills the fields that the texts stand for.
func validateAdmin(r *report, a *Admin) {
	const table = "admin"
	mode, err := strconv.ParseUint(a.SocketMode, 8, 32)
	if err != nil || mode > 0o777 {
		r.add(join(table, "socket_mode"),
			Error{Found: quote(a.SocketMode), Allowed: `needs permission bits as chmod has them, such as "0660"`})
	}
	a.Mode = fs.FileMode(mode)
	path, unix := strings.CutPrefix(a.Address, "unix:")
	switch {
	case a.Address == "":
	case unix:
		if e := checkSocketPath(a.Address, path, forAdmin); e != nil {
			r.add(join(table, "address"), *e)
			return
		}
		a.Socket = path
	default:
		end, ok := validAddress(r, join(table, "address"), a.Address, forAdmin)
		if !ok {
			return
		}
		a.Bind = netip.AddrPortFrom(end.ip, end.port)
		if !end.ip.IsLoopback() && a.TokenFile == "" {
			r.add(join(table, "token_file"), Error{Message: "the admin address can be reached from other machines",
				Allowed: "needs the path of a file with a token, or an address on loopback"})
		}
	}
}

// checkSocketPath returns what is wrong with the path of a Unix socket for HTTP, whose whole text is address; nil if
// nothing is.
func checkSocketPath(address, path string, use addressUse) *Error {
	switch {
	case path == "" || hasNUL(path):
		return &Error{Found: quote(address), Allowed: use.needs()}
	case len(path) > maxSocketPath:
		return &Error{Found: quote(address), Message: "the path has " + strconv.Itoa(len(path)) + " bytes",
			Allowed: "allowed are " + strconv.Itoa(maxSocketPath)}
	}
	return nil
}
