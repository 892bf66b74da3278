package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// etcd's limits as published.
const (
	etcdRequest = 1.5 * (1 << 20) // https://etcd.io/docs/v3.4/dev-guide/limit/, "Request size limit"
	etcdStore   = 8 << 30         // the same page, "Storage size limit": the suggested maximum
	etcdWrites  = 10_000          // a second; https://github.com/etcd-io/etcd, README: "benchmarked 10,000 writes/sec"
)

// print writes the figures as tables.
func (r *result) print(to io.Writer) error {
	fmt.Fprintf(to, "%s nodes, %s backends, %s sessions of as many clients\n\n", thousands(r.Nodes),
		thousands(r.Backends), thousands(r.Sessions))
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if r.Choices != nil {
		r.printChoices(w)
	}
	if r.Etcd != nil {
		r.Etcd.print(w)
	}
	return w.Flush()
}

func (r *result) printChoices(w io.Writer) {
	row(w, "spread", "backends", "sessions of each", "max/mean", "p99/mean", "min/mean", "sent elsewhere by the bound")
	for _, c := range r.Choices {
		row(w, c.name(), thousands(c.Backends), fmt.Sprintf("%.0f", c.Mean), fmt.Sprintf("%.3f", c.Max),
			fmt.Sprintf("%.3f", c.P99), fmt.Sprintf("%.3f", c.Min), percent(c.Bounded, c.Bound > 0))
	}
	fmt.Fprintln(w)
	row(w, "sessions that move", "a node leaves", "a backend leaves", "of other backends", "a backend comes",
		"between others")
	for _, c := range r.Choices {
		if c.NodeLeaves != nil {
			row(w, c.name(), c.NodeLeaves.String(), c.BackendLeaves.had(), c.BackendLeaves.others(), c.BackendComes.had(),
				c.BackendComes.others())
		}
	}
	fmt.Fprintln(w)
}

func (e *etcdLoad) print(w io.Writer) {
	row(w, "etcd", "measured", "published limit")
	row(w, "keys", thousands(e.Keys), "")
	row(w, "a key with its value", size(e.KeyBytes), "")
	row(w, "store", size(e.StoreBytes), size(etcdStore))
	row(w, "largest request", size(float64(e.Request)), size(etcdRequest))
	row(w, "watches", thousands(int(e.Watches)), "")
	row(w, "etcd's memory", size(e.MemoryBytes), "")
	fmt.Fprintln(w)
	row(w, "what happens", "all know after", "keys written", "transactions", "keys/s", "delivered", "reads", "renewals",
		"sent", "etcd's CPU time")
	for _, p := range e.Phases {
		row(w, p.Name, fmt.Sprintf("%.2f s", p.Seconds), thousands(int(p.Puts)), thousands(int(p.Transactions)),
			fmt.Sprintf("%.1f", p.Puts/p.Seconds), thousands(int(p.Events)), thousands(int(p.Reads)),
			thousands(int(p.Renewals)), size(p.SentBytes), fmt.Sprintf("%.2f s", p.CPUSeconds))
	}
	fmt.Fprintf(w, "\netcd's own benchmark has %s writes a second.\n", thousands(etcdWrites))
}

func (c *choices) name() string { return algorithm{c.Algorithm, c.Bound, c.Backends}.String() }

func row(w io.Writer, cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }

// String returns how many sessions have moved, of those that reach another node.
func (h *handedOver) String() string {
	if h == nil {
		return "-"
	}
	return fmt.Sprintf("%s of %s", thousands(h.Moved), thousands(h.Sessions))
}

func (m *moved) had() string    { return m.share(func(m *moved) float64 { return m.Had }) }
func (m *moved) others() string { return m.share(func(m *moved) float64 { return m.Others }) }

func (m *moved) share(of func(*moved) float64) string {
	if m == nil {
		return "-"
	}
	return percent(of(m), true)
}

// percent returns a share as text, or "-" if there is none.
func percent(share float64, is bool) string {
	if !is {
		return "-"
	}
	return fmt.Sprintf("%.3f %%", 100*share)
}

// size returns a number of bytes as text.
func size(bytes float64) string {
	units := []string{"B", "KiB", "MiB", "GiB"}
	at := 0
	for bytes >= 1024 && at < len(units)-1 {
		bytes, at = bytes/1024, at+1
	}
	return strconv.FormatFloat(bytes, 'g', 3, 64) + " " + units[at]
}

// thousands returns a number with a comma between thousands.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
