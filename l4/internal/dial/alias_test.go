package dial_test

import "github.com/limeload/limeload-l4/l4/internal/l4test"

// What the tests here take from l4test.
var (
	newPool          = l4test.NewPool
	spec             = l4test.Spec
	start            = l4test.Start
	eventually       = l4test.Eventually
	dial             = l4test.Dial
	backend          = l4test.Backend
	echo             = l4test.Echo
	refusing         = l4test.Refusing
	refusedWithReset = l4test.RefusedWithReset
	ask              = l4test.Ask
	flowSpec         = l4test.FlowSpec
	dialUDP          = l4test.DialUDP
)
