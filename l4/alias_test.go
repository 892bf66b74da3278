package l4_test

import "github.com/limeload/limeload-l4/l4/internal/l4test"

// What the tests here take from l4test.
var (
	newPool          = l4test.NewPool
	spec             = l4test.Spec
	start            = l4test.Start
	done             = l4test.Done
	allocations      = l4test.Allocations
	newCapture       = l4test.NewCapture
	descriptors      = l4test.Descriptors
	openDescriptors  = l4test.OpenDescriptors
	eventually       = l4test.Eventually
	newQueuePool     = l4test.NewQueuePool
	dial             = l4test.Dial
	backend          = l4test.Backend
	echo             = l4test.Echo
	refusing         = l4test.Refusing
	swallowing       = l4test.Swallowing
	reset            = l4test.Reset
	refusedWithReset = l4test.RefusedWithReset
	ask              = l4test.Ask
	queuedClients    = l4test.QueuedClients
	flowSpec         = l4test.FlowSpec
	startUDP         = l4test.StartUDP
	echoUDP          = l4test.EchoUDP
	naming           = l4test.Naming
	dialUDP          = l4test.DialUDP
	askUDP           = l4test.AskUDP
	readUDP          = l4test.ReadUDP
	address          = l4test.Address
	info             = l4test.Info
	hold             = l4test.Hold
	awaitDropped     = l4test.AwaitDropped
)
