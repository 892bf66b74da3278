//go:build vm

package harness

import "time"

// Patience is how long a test waits for anything before it fails. The processor of a virtual machine is emulated: what
// takes a second elsewhere takes up to half a minute there.
const Patience = 5 * time.Minute
