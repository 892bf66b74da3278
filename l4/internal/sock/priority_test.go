package sock

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGiveWay holds that a thread has a long slice until restore, and everything else of it stays.
func TestGiveWay(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	of := func() unix.SchedAttr {
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return *a
	}
	before := of()
	restore := GiveWay()
	during := of()
	restore()
	if after := of(); after != before {
		t.Errorf("%+v after restore, %+v before GiveWay", after, before)
	}
	if before.Runtime == 0 { // Linux 6.12
		t.Skip("this kernel has no slices that can be set")
	}
	want := before
	want.Runtime = uint64(100 * time.Millisecond)
	if during != want {
		t.Errorf("%+v after GiveWay, want %+v", during, want)
	}
}
