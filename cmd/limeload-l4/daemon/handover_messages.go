package daemon

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/l4"
)

// handoverProtocol is the version of the messages below. A new process with another one, or with another
// l4.HandoverVersion, takes nothing over. The message hello must stay readable for all versions.
const handoverProtocol = 1

// upgradeVariable is the environment variable with the descriptor on which a new process talks to the old one.
const upgradeVariable = "LIMELOAD_UPGRADE_FD"

// A messageKind is the kind of a message between the two processes of an upgrade. The old one sends first; then both
// send in turn, but for begin and main, which have no answer.
//
//	old process            new process
//	-----------            -----------
//	hello             -->
//	                  <--  hello
//	offer, sockets    -->                    the new one reads its configuration and makes everything ready
//	                  <--  prepared, or refused
//	counters          -->                    with the clients that sticky pools remember
//	                  <--  counted
//	moving            -->                    flows first, then sessions; nobody serves them meanwhile
//	                  <--  taken
//	begin             -->                    the old one has forgotten those that were taken
//	admit             -->                    between the flows and the sessions
//	                  <--  admitted
//	counters          -->
//	                  <--  counted
//	finish            -->                    the new one has everything, and answers at the admin socket
//	                  <--  finished
//	main              -->                    the old one has closed its listening sockets: it drains
//
// Until finished has arrived, the old process goes on with everything but what the new one has got, if that dies. After
// main the old one may send moving, begin and counters, and at its end it closes the connection.
const (
	kindHello    = "hello"
	kindOffer    = "offer"
	kindSockets  = "sockets"
	kindPrepared = "prepared"
	kindRefused  = "refused"
	kindMoving   = "moving"
	kindTaken    = "taken"
	kindBegin    = "begin"
	kindAdmit    = "admit"
	kindAdmitted = "admitted"
	kindCounters = "counters"
	kindCounted  = "counted"
	kindFinish   = "finish"
	kindFinished = "finished"
	kindMain     = "main"
)

// hello says who speaks.
type hello struct {
	Protocol int    `json:"protocol"`
	Sockets  int    `json:"sockets"` // l4.HandoverVersion
	Version  string `json:"version"` // of the program
	PID      int    `json:"pid"`
}

func newHello(version string, pid int) hello {
	return hello{Protocol: handoverProtocol, Sockets: l4.HandoverVersion, Version: version, PID: pid}
}

// fits returns an error unless both processes speak the same versions.
func (h hello) fits(other hello) error {
	if h.Protocol == other.Protocol && h.Sockets == other.Sockets {
		return nil
	}
	return fmt.Errorf("version %s hands over with protocol %d.%d, and version %s takes over with %d.%d; "+
		"restart the service to change the version", h.Version, h.Protocol, h.Sockets, other.Version, other.Protocol,
		other.Sockets)
}

// offer is what the new process must know before it makes everything ready. Its descriptors are those of HTTP.
type offer struct {
	State    savedState      `json:"state"`     // the run-time changes, with or without a state file
	Drains   []offeredDrain  `json:"drains"`    // under way
	LogLevel admin.LogLevel  `json:"log_level"` // "" unless it was set at run time
	HTTP     []offeredSocket `json:"http"`
	Sockets  int             `json:"sockets"`  // how many are in the messages that follow
	Instance string          `json:"instance"` // in the fleet; "" without one
	Tickets  *fleet.Saved    `json:"tickets"`  // the keys of TLS tickets of the fleet; nil for none
}

// An offeredSocket is a listening socket for HTTP.
type offeredSocket struct {
	Name    string `json:"name"` // what it is for: adminSocketName or metricsSocketName
	Address string `json:"address"`
}

// An offeredDrain is the drain of a backend with a deadline or a removal.
type offeredDrain struct {
	Pool     string    `json:"pool"`
	Backend  string    `json:"backend"`
	Started  time.Time `json:"started"`
	Deadline time.Time `json:"deadline,omitzero"`
	Sessions int64     `json:"sessions"`
	Remove   bool      `json:"remove"`
	By       string    `json:"by,omitempty"`    // who wants the removal
	Local    bool      `json:"local,omitempty"` // on this node alone
}

// refused says why the new process does not take over.
type refused struct {
	Error         string `json:"error"`
	Configuration bool   `json:"configuration"` // the error is a mistake in the configuration
}

// prepared says that the new process has done all that can fail.
type prepared struct {
	HTTP []string `json:"http"` // names of the sockets that it took
}

// moving are sessions or flows on their way. The descriptors of all of them follow one another.
type moving struct {
	Protocol l4.Protocol `json:"protocol"`
	Counts   []int       `json:"counts"` // of descriptors, of each
	Moving   []l4.Moving `json:"moving"`
}

// taken says which of the last moving the new process has not taken.
type taken struct {
	Refused []int `json:"refused"`        // indices
	Full    bool  `json:"full,omitempty"` // the new process has no room for more descriptors
}

// newMoving makes the message for sessions or flows, and returns their descriptors.
func newMoving(p l4.Protocol, all []l4.Moving) (message moving, fds []int) {
	message = moving{Protocol: p, Moving: all}
	for _, m := range all {
		message.Counts = append(message.Counts, len(m.FDs))
		fds = append(fds, m.FDs...)
	}
	return message, fds
}

// assign gives the descriptors of a message to what they belong to.
func (m *moving) assign(fds []int) error {
	if len(m.Counts) != len(m.Moving) {
		return fmt.Errorf("%d numbers of descriptors for %d sessions or flows", len(m.Counts), len(m.Moving))
	}
	for i, n := range m.Counts {
		if n < 0 || n > len(fds) {
			return fmt.Errorf("%d descriptors for the rest of %d sessions or flows", len(fds), len(m.Moving)-i)
		}
		m.Moving[i].FDs, fds = fds[:n:n], fds[n:]
	}
	if len(fds) > 0 {
		return fmt.Errorf("%d descriptors too many", len(fds))
	}
	return nil
}

// split returns what was taken, and what was not.
func (t taken) split(all []l4.Moving) (moved, returned []l4.Moving, err error) {
	for i, m := range all {
		if slices.Contains(t.Refused, i) {
			returned = append(returned, m)
		} else {
			moved = append(moved, m)
		}
	}
	if len(returned) != len(t.Refused) {
		return nil, nil, fmt.Errorf("the new process refuses %d of %d sessions or flows", t.Refused, len(all))
	}
	return moved, returned, nil
}

// sockets are some of the listening sockets; the descriptors are in the same order.
type sockets struct {
	Sockets []l4.ListeningSocket `json:"sockets"`
}

// noBody is the body of messages that have none.
var noBody = json.RawMessage("{}")
