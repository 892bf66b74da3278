package daemon

import (
	"slices"

	dto "github.com/prometheus/client_model/go"

	"github.com/limeload/limeload-l4/l4"
)

// A listener of both protocols counts for each by itself: its sessions and its flows have nothing in common but their
// name. Its series have the label protocol besides. Those of other listeners have no such label, as before there were
// listeners of both, so that nobody's queries and alerts change; sums by listener are right for all.

// A protocolSink is a sink for one listener's numbers.
type protocolSink struct {
	sink
	protocol *dto.LabelPair // nil for a listener of one protocol
}

// ofProtocol returns the sink for the numbers of the i-th listener. Those of one name follow upon each other.
func (to sink) ofProtocol(listeners []l4.ListenerInfo, i int) protocolSink {
	name := listeners[i].Name
	if i > 0 && listeners[i-1].Name == name || i+1 < len(listeners) && listeners[i+1].Name == name {
		return protocolSink{to, label("protocol", listeners[i].Protocol.String())}
	}
	return protocolSink{to, nil}
}

// put is sink.put.
func (to protocolSink) put(s *series, value float64, labels ...*dto.LabelPair) {
	to.sink.put(s, value, to.with(labels)...)
}

// times is sink.times.
func (to protocolSink) times(s *series, h l4.Histogram, classic scale, labels ...*dto.LabelPair) {
	form := histogramOf(s, h, classic, labels)
	to.sink <- &distribution{of: s, form: form, labels: to.with(labels)}
}

// with adds the protocol to labels, in alphabetical order.
func (to protocolSink) with(labels []*dto.LabelPair) []*dto.LabelPair {
	if to.protocol == nil {
		return labels
	}
	at := slices.IndexFunc(labels, func(l *dto.LabelPair) bool { return l.GetName() > to.protocol.GetName() })
	if at < 0 {
		at = len(labels)
	}
	return slices.Insert(slices.Clone(labels), at, to.protocol)
}
