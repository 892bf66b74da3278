package flow_test

import "github.com/limeload/limeload-l4/l4/internal/l4test"

// What the tests here take from l4test.
var (
	newPool      = l4test.NewPool
	spec         = l4test.Spec
	start        = l4test.Start
	done         = l4test.Done
	allocations  = l4test.Allocations
	newCapture   = l4test.NewCapture
	descriptors  = l4test.Descriptors
	eventually   = l4test.Eventually
	startWith    = l4test.StartWith
	withOffload  = l4test.WithOffload
	dial         = l4test.Dial
	backend      = l4test.Backend
	echo         = l4test.Echo
	refusing     = l4test.Refusing
	ask          = l4test.Ask
	flowSpec     = l4test.FlowSpec
	startUDP     = l4test.StartUDP
	echoUDP      = l4test.EchoUDP
	naming       = l4test.Naming
	dialUDP      = l4test.DialUDP
	dialUDPFrom  = l4test.DialUDPFrom
	askUDP       = l4test.AskUDP
	readUDP      = l4test.ReadUDP
	sendTrain    = l4test.SendTrain
	address      = l4test.Address
	info         = l4test.Info
	hold         = l4test.Hold
	endOne       = l4test.EndOne
	awaitDropped = l4test.AwaitDropped
	awaitFlows   = l4test.AwaitFlows
)
