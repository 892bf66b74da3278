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
		info = c.gauge("limeload_listener_info",
			"The labels say which pool the listener sends to; the value is always 1.",
			"listener", "pool", "protocol")
		sessions = c.gauge("limeload_listener_sessions",
			"The listener has so many sessions now.", "listener")
		accepted = c.counter("limeload_listener_accepted_total",
			"The listener has begun so many sessions: those of all clients but the ones that a limit or an access list has refused at once.",
			"listener")
		ended = c.counter("limeload_listener_ended_total",
			"So many sessions of the listener have ended, by who ended them and how; refused ones are not among them.",
			"listener", "reason")
		refused = c.counter("limeload_listener_refused_total",
			"The listener has turned away so many clients without a byte from a backend, by the reason.",
			"listener", "reason")
		would = c.counter("limeload_listener_would_refuse_total",
			"The listener has let in so many sessions, flows and questions because of dry_run, by the limit that would have refused them.",
			"listener", "reason")
		clients = c.gauge("limeload_listener_clients",
			"The listener knows so many clients now; 0 without a limit that needs to know them.", "listener")
		clientsMax = c.gauge("limeload_listener_clients_max",
			"The listener may know so many clients at once (tracked_clients); 0 without a limit that needs to know them.",
			"listener")
		forgotten = c.counter("limeload_listener_clients_forgotten_total",
			"The listener has forgotten so many clients for want of room while they had sessions or were over a limit.",
			"listener")
		bytes = c.counter("limeload_listener_bytes_total",
			"The listener has moved so many bytes, in from clients and out to them; bytes of running sessions count some seconds later.",
			"direction", "listener")
		retries = c.counter("limeload_listener_retries_total",
			"The listener has connected again so often after a failed connect, by how that had failed.",
			"listener", "outcome")

		datagrams = c.counter("limeload_listener_datagrams_total",
			"The UDP listener has had so many datagrams, in from clients and out to them, those that were dropped included.",
			"direction", "listener")
		dropped = c.counter("limeload_listener_dropped_total",
			"The listener has dropped so many datagrams of either direction, by the reason.", "listener", "reason")

		cancels = c.counter("limeload_postgres_cancels_total",
			"A listener with profile postgres has had so many CancelRequests, by what became of them.",
			"listener", "result")
		handshakes = c.counter("limeload_listener_tls_handshakes_total",
			"So many TLS handshakes have succeeded, with clients and with backends on their behalf.",
			"listener", "resumed", "side", "version")
		failed = c.counter("limeload_listener_tls_handshakes_failed_total",
			"So many TLS handshakes have failed, with clients and with backends on their behalf, by the cause.",
			"listener", "reason", "side")
		secured = c.counter("limeload_listener_tls_sessions_total",
			"So many sessions have gone on with TLS behind the handshake: by the kernel, counted when it begins to encrypt, or by the program itself (user), counted when they end.",
			"by", "listener", "side")

		connect = c.histogram("limeload_listener_connect_seconds",
			"A connect to a backend takes so long, if it succeeds.", "listener")
		firstByte = c.histogram("limeload_listener_first_byte_seconds",
			"A backend takes so long to its first byte, from when it was asked or, if it speaks unasked, connected.",
			"listener")
		duration = c.histogram("limeload_listener_session_seconds",
			"A session that had been connected to a backend lasts so long, from accept to end.", "listener")
		queued = c.histogram("limeload_listener_queue_seconds",
			"A session that has to wait for a backend waits so long.", "listener")
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
			for kind, n := range l.Secured {
				by := "user"
				if kind.Kernel {
					by = "kernel"
				}
				to.put(secured, float64(n), label("by", by), listener, label("side", kind.Side.String()))
			}
			to.times(connect, l.ConnectTime, waits, listener)
			to.times(firstByte, l.FirstByteTime, waits, listener)
			to.times(duration, l.Duration, lives, listener)
			to.times(queued, l.QueueTime, waits, listener)
		}
	}
}
