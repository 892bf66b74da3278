//go:build !vm

package harness

import "time"

// Patience is how long a test waits for anything before it fails. It says nothing about speed: a loaded machine with
// two cores must never reach it.
const Patience = 2 * time.Minute
