package session

import (
	"testing"
	"unsafe"
)

// TestSizeAtRest holds that a session at rest is small: its struct is nearly all of its memory of ours.
func TestSizeAtRest(t *testing.T) {
	if got, want := unsafe.Sizeof(Session{}), uintptr(384); got > want {
		t.Errorf("a Session has %d bytes, want at most %d: put what few sessions need into extra", got, want)
	}
}
