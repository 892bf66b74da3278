package gate_test

import "github.com/limeload/limeload-l4/l4/internal/l4test"

// What the tests here take from l4test.
var (
	newPool    = l4test.NewPool
	spec       = l4test.Spec
	start      = l4test.Start
	eventually = l4test.Eventually
	dial       = l4test.Dial
	backend    = l4test.Backend
	echo       = l4test.Echo
	ask        = l4test.Ask
	flowSpec   = l4test.FlowSpec
	startUDP   = l4test.StartUDP
	echoUDP    = l4test.EchoUDP
	dialUDP    = l4test.DialUDP
	askUDP     = l4test.AskUDP
	info       = l4test.Info
)
