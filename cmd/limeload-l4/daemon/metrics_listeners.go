package daemon

import (
	"strconv"

	dto "github.com/prometheus/client_model/go"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// ofListeners declares the numbers of the listeners. A removed listener has none, even while its sessions go on.
//
// Refusals have a metric of their own. Ended sessions and refusals are two questions, each with its own sum, and a rule
// about the one need not list the reasons of the other, of which a later version may have more.
func (c *catalog) ofListeners(d *Daemon) part {
	var (
		info = c.gauge("limeload_listener_info", "Always 1; the labels say which pool the listener sends to.",
			"listener", "pool", "protocol")
		sessions = c.gauge("limeload_listener_sessions", "Sessions of the listener now.", "listener")
		accepted = c.counter("limeload_listener_accepted_total",
			"Sessions that have begun: all clients but those that a limit or an access list has refused at once.",
			"listener")
		ended = c.counter("limeload_listener_ended_total",
			"Sessions that have ended, by who ended them and how; those refused are not among them.",
			"listener", "reason")
		refused = c.counter("limeload_listener_refused_total",
			"Clients that were turned away without a byte from a backend, by the reason.", "listener", "reason")
		would = c.counter("limeload_listener_would_refuse_total",
			"Sessions, flows and questions that dry_run let in, by the limit that would have refused them.",
			"listener", "reason")
		clients = c.gauge("limeload_listener_clients",
			"Clients that the listener knows now; 0 without a limit that needs to know them.", "listener")
		clientsMax = c.gauge("limeload_listener_clients_max",
			"Clients that the listener may know at once (tracked_clients); 0 without a limit that needs to know them.",
			"listener")
		forgotten = c.counter("limeload_listener_clients_forgotten_total",
			"Clients that were forgotten for want of room while they had sessions or were over a limit.", "listener")
		bytes = c.counter("limeload_listener_bytes_total",
			"Bytes moved, in from clients and out to them; of running sessions up to some seconds ago.",
			"direction", "listener")
		retries = c.counter("limeload_listener_retries_total",
			"Connects that followed a failed one, by how that had failed.", "listener", "outcome")

		datagrams = c.counter("limeload_listener_datagrams_total",
			"Datagrams of a UDP listener, in from clients and out to them, those that were dropped included.",
			"direction", "listener")
		dropped = c.counter("limeload_listener_dropped_total",
			"Datagrams of either way that did not get where they were to go, by the reason.", "listener", "reason")

		cancels = c.counter("limeload_postgres_cancels_total",
			"CancelRequests at a listener with profile postgres, by what became of them.", "listener", "result")
		handshakes = c.counter("limeload_listener_tls_handshakes_total",
			"TLS handshakes that succeeded, with clients and with backends on their behalf.",
			"listener", "resumed", "side", "version")
		failed = c.counter("limeload_listener_tls_handshakes_failed_total",
			"TLS handshakes that failed, with clients and with backends on their behalf, by the cause.",
			"listener", "reason", "side")

		connect = c.histogram("limeload_listener_connect_seconds",
			"How long it took to connect to a backend, of connects that succeeded.", "listener")
		firstByte = c.histogram("limeload_listener_first_byte_seconds",
			"How long a backend took to its first byte, from when it was asked or, if it spoke unasked, connected.",
			"listener")
		duration = c.histogram("limeload_listener_session_seconds",
			"How long sessions lasted that had been connected to a backend, from accept to end.", "listener")
		queued = c.histogram("limeload_listener_queue_seconds",
			"How long sessions waited for a backend, of those that had to.", "listener")
	)
	waits := newScale(4, 1e-4, 100)       // from a connect on loopback to the longest sensible timeout
	lives := newScale(8, 1.0/1024, 1<<20) // from one request to twelve days
	protocols := labelsOf("protocol", l4.UDP)
	in, out := label("direction", "in"), label("direction", "out")
	outcomes := labelsOf("outcome", pool.Neutral)
	reasons := make(map[l4.Reason]*dto.LabelPair)
	for _, why := range l4.Reasons() {
		reasons[why] = label("reason", why.String())
	}
	drops := make(map[l4.Drop]*dto.LabelPair)
	for _, why := range l4.Drops() {
		drops[why] = label("reason", why.String())
	}
	results := make(map[l4.CancelResult]*dto.LabelPair)
	for _, r := range l4.CancelResults() {
		results[r] = label("result", r.String())
	}
	return func(all sink) {
		listeners := d.server.Listeners()
		for i, l := range listeners {
			listener := label("listener", l.Name)
			all.put(info, 1, listener, label("pool", l.Pool), protocols[l.Protocol])
			to := all.ofProtocol(listeners, i)
			to.put(sessions, float64(l.Sessions), listener)
			to.put(accepted, float64(l.Accepted), listener)
			for why, reason := range reasons {
				s := ended
				if isRefusal(why) {
					s = refused
				}
				to.put(s, float64(l.Ended[why]), listener, reason)
			}
			for _, why := range []l4.Reason{l4.ClientSessions, l4.ClientRate, l4.Rate} {
				to.put(would, float64(l.WouldRefuse[why]), listener, reasons[why])
			}
			to.put(clients, float64(l.Clients), listener)
			to.put(clientsMax, float64(l.ClientsMost), listener)
			to.put(forgotten, float64(l.ClientsForgotten), listener)
			to.put(bytes, float64(l.BytesIn), in, listener)
			to.put(bytes, float64(l.BytesOut), out, listener)
			for o, outcome := range outcomes {
				if pool.Outcome(o) != pool.Served { // no other connect follows that
					to.put(retries, float64(l.Retries[pool.Outcome(o)]), listener, outcome)
				}
			}
			if l.Protocol == l4.UDP {
				to.put(datagrams, float64(l.DatagramsIn), in, listener)
				to.put(datagrams, float64(l.DatagramsOut), out, listener)
				for why, reason := range drops {
					to.put(dropped, float64(l.Dropped[why]), listener, reason)
				}
			}
			for r, n := range l.Cancels {
				to.put(cancels, float64(n), listener, results[r])
			}
			for h, n := range l.Handshakes {
				side := label("side", h.Side.String())
				if h.Result == l4.TLSHandshakeOK {
					to.put(handshakes, float64(n), listener, label("resumed", strconv.FormatBool(h.Resumed)), side,
						label("version", h.Version))
				} else {
					to.put(failed, float64(n), listener, label("reason", h.Result.String()), side)
				}
			}
			to.times(connect, l.ConnectTime, waits, listener)
			to.times(firstByte, l.FirstByteTime, waits, listener)
			to.times(duration, l.Duration, lives, listener)
			to.times(queued, l.QueueTime, waits, listener)
		}
	}
}
