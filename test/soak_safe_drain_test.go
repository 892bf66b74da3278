//go:build soak

package test

import "testing"

// TestSoakSafeDrain drains two servers in turns, 50 times, under a hundred clients that do transactions.
func TestSoakSafeDrain(t *testing.T) { safeDrains(t, 100, 50) }
