package session_test

import "github.com/limeload/limeload-l4/l4/internal/l4test"

// What the tests here take from l4test.
var (
	newPool          = l4test.NewPool
	spec             = l4test.Spec
	start            = l4test.Start
	done             = l4test.Done
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
	address          = l4test.Address
)
