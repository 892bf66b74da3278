package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/conf/file"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/rate"
)

// deadlyStep is the variable that makes TestStateWriter write a state and kill its process before that step.
const deadlyStep = "LIMELOAD_TEST_STATE_STEP"

// A deadlyDisk is the real disk until its step.
type deadlyDisk struct {
	disk
	left int // steps left
}

// step counts one call, and kills the process at the last one.
func (d *deadlyDisk) step() {
	if d.left--; d.left < 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// deadly returns the calls with a step before each, and one within the write.
func (d *deadlyDisk) deadly() disk {
	return disk{
		create: func(path string) (diskFile, error) {
			d.step()
			f, err := d.disk.create(path)
			return deadlyFile{f, d}, err
		},
		rename: func(from, to string) error { d.step(); return d.disk.rename(from, to) },
		sync:   func(folder string) error { d.step(); return d.disk.sync(folder) },
	}
}

type deadlyFile struct {
	diskFile
	disk *deadlyDisk
}

func (f deadlyFile) Write(p []byte) (int, error) {
	f.disk.step()
	n, err := f.diskFile.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	f.disk.step()
	m, err := f.diskFile.Write(p[len(p)/2:])
	return n + m, err
}
func (f deadlyFile) Sync() error  { f.disk.step(); return f.diskFile.Sync() }
func (f deadlyFile) Close() error { f.disk.step(); return f.diskFile.Close() }

// TestStateWriter is the process that TestStateSurvivesAKill kills.
func TestStateWriter(t *testing.T) {
	text, asked := os.LookupEnv(deadlyStep)
	if !asked {
		return // not a test by itself
	}
	step, path, _ := strings.Cut(text, " ")
	n, err := strconv.Atoi(step)
	if err != nil {
		t.Fatal(err)
	}
	s := newStateStore(path,
		func() any { return map[string]string{"what": "new", "padding": strings.Repeat("n", 100_000)} })
	s.disk = (&deadlyDisk{disk: s.disk, left: n}).deadly()
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
}

// TestStateSurvivesAKill kills a process at each step of a write. Each time the file is complete, old or new, and the
// next process can write it.
func TestStateSurvivesAKill(t *testing.T) {
	type content struct{ What, Padding string }
	seen := make(map[string]int)
	killed := true
	for step := 0; killed; step++ {
		path := filepath.Join(t.TempDir(), "state.json")
		old := newStateStore(path,
			func() any { return map[string]string{"what": "old", "padding": strings.Repeat("o", 200_000)} })
		if err := old.save(); err != nil {
			t.Fatal(err)
		}
		command := exec.Command(os.Args[0], "-test.run=^TestStateWriter$")
		command.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", deadlyStep, step, path))
		err := command.Run()
		var exit *exec.ExitError
		killed = errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if err != nil && !killed {
			t.Fatal(err)
		}
		var found content
		if err := old.load(&found); err != nil {
			t.Fatalf("killed before step %d: %v", step, err)
		}
		want := map[string]int{"old": 200_000, "new": 100_000}[found.What]
		if len(found.Padding) != want {
			t.Errorf("killed before step %d: %q with %d bytes", step, found.What, len(found.Padding))
		}
		seen[found.What]++
		if err := old.save(); err != nil {
			t.Errorf("killed before step %d: the next process: %v", step, err)
		}
	}
	// create, two halves of the write, sync, close, rename: old before each of them; new before the sync of the folder
	// and at the end.
	if want := map[string]int{"old": 6, "new": 2}; !reflect.DeepEqual(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
}

// TestStateDamaged: a damaged state file is renamed, and the daemon starts.
func TestStateDamaged(t *testing.T) {
	backend := `{"name":"b","address":"127.0.0.1:7","weight":1,"max_sessions":0,"tier":0,"zone":"","mode":"ready"}`
	for name, text := range map[string]string{
		"not JSON":        `{"version":1,`,
		"empty":           ``,
		"another type":    `[]`,
		"another version": `{"version":2,"pools":{}}`,
		"an unknown mode": `{"version":1,"pools":{"web":[{"what":"added","base":` +
			strings.Replace(backend, "ready", "redy", 1) + `}]}}`,
		"a bad weight": `{"version":1,"pools":{"web":[{"what":"added","base":` +
			strings.Replace(backend, `"weight":1`, `"weight":257`, 1) + `}]}}`,
		"a bad address": `{"version":1,"pools":{"web":[{"what":"added","base":` +
			strings.Replace(backend, `127.0.0.1:7`, `0.0.0.0:7`, 1) + `}]}}`,
		"unknown what":                    `{"version":1,"pools":{"web":[{"what":"moved","base":` + backend + `}]}}`,
		"an access rule with bits set":    `{"version":1,"access":[{"prefix":"192.0.2.7/24","action":"deny"}]}`,
		"an access rule without a prefix": `{"version":1,"access":[{"action":"deny"}]}`,
		"an unknown action":               `{"version":1,"access":[{"prefix":"192.0.2.0/24","action":"drop"}]}`,
		"a comment that controls a terminal": `{"version":1,"access":[{"prefix":"192.0.2.0/24","action":"deny",` +
			`"comment":"\u001b[2J"}]}`,
		"an access rule twice": `{"version":1,"access":[{"prefix":"192.0.2.7/32","action":"deny"},` +
			`{"prefix":"192.0.2.7","action":"allow"}]}`,
		"the same twice": `{"version":1,"pools":{"web":[{"what":"added","base":` + backend +
			`},{"what":"added","base":` + backend + `}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			d := testDaemon(t, parsed(t, fmt.Sprintf("[global]\nstate_file = %q\n", path)))
			if kept, err := os.ReadFile(path + damagedSuffix); err != nil || string(kept) != text {
				t.Errorf("set aside is %q, %v", kept, err)
			}
			if rules := d.AccessRules(); len(rules) > 0 {
				t.Errorf("there are the access rules %+v", rules)
			}
			if n := len(d.pools["web"].pool.Backends()); n != 1 {
				t.Errorf("there are %d backends", n)
			}
			if s := d.Status(); !strings.Contains(s.StateError, damagedSuffix) {
				t.Errorf("status says %q", s.StateError)
			}
			if _, err := d.AddBackend("web", admin.NewBackend{Address: "127.0.0.1:9"}); err != nil {
				t.Error(err)
			}
			if s := d.Status(); s.StateError != "" {
				t.Errorf("after the next change status says %q", s.StateError)
			}
		})
	}
}

// TestStateIsWrittenToAFileOfItsOwn: in the place of the temporary file there may be a link, from somebody who wants
// another file overwritten, or the file of a process that was killed.
func TestStateIsWrittenToAFileOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "state.json"), filepath.Join(dir, "victim")
	for _, prepare := range []func() error{
		func() error { return os.Symlink(victim, path+".new") },
		func() error { return os.Symlink(filepath.Join(dir, "missing"), path+".new") },
		func() error {
			return os.WriteFile(path+".new", []byte("left by a process that died, and longer than the state"), 0o644)
		},
	} {
		if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), prepare()); err != nil {
			t.Fatal(err)
		}
		if err := newStateStore(path, func() any { return "state" }).save(); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
			t.Errorf("the other file is %q, %v", text, err)
		}
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
			t.Errorf("the state file is %v, %v", info, err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "\"state\"\n" {
			t.Errorf("the state is %q, %v", text, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "missing")); err == nil {
			t.Error("a file was made behind a link")
		}
	}
}

// TestStateOfAnotherKind: anything but a file in the place of the state file stays as it is, and blocks nothing.
func TestStateOfAnotherKind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, "/dev/zero"} {
		var state savedState
		if err := newStateStore(path, nil).load(&state); !errors.Is(err, file.ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestStateRemembersThePrimary: the next daemon knows who was the primary, and a version that does not know that reads
// the rest.
func TestStateRemembersThePrimary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	config := fmt.Sprintf(
		"[global]\nstate_file = %q\n[pool.db]\nbackends = [{ address = \"127.0.0.1:7997\", name = \"b2\" }]\n"+
			"[pool.db.health]\ntype = \"redis\"\nrole = \"primary\"\n", path)
	if err := os.WriteFile(path, []byte(`{"version":1,"pools":{},"primaries":{"db":"b2","gone":"b1","web":"b1"}}`),
		0o600); err != nil {
		t.Fatal(err)
	}
	d := testDaemon(t, parsed(t, config))
	if err := d.saveState(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	var now savedState
	if err == nil {
		err = json.Unmarshal(text, &now)
	}
	if err != nil || now.Version != 1 || !reflect.DeepEqual(now.Primaries, map[string]string{"db": "b2"}) {
		t.Errorf("the state is %s, %v", text, err)
	}
}

// TestStateOutlivesTheProcess changes everything that can be changed, and starts another daemon with it. Where the file
// has changed meanwhile, the file wins.
func TestStateOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	global := fmt.Sprintf("[global]\nstate_file = %q\n", path)
	const three = `{ address = "127.0.0.1:7998", name = "b1" }, { address = "127.0.0.1:7997", name = "b2" }, ` +
		`{ address = "127.0.0.1:7996", name = "b3" }`
	with := func(backends string) *conf.Config {
		return parsed(t, global+"[pool.other]\nbackends = ["+backends+"]\n")
	}
	d := testDaemon(t, with(three))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	weight, limit, often, mode := 7, 9, "600/m burst 20", "drain"
	_, err := d.ChangeBackend("other", "b1", admin.BackendChange{Weight: &weight, MaxSessions: &limit, MaxRate: &often,
		Mode: &mode})
	must(err)
	must(errorOf(d.RemoveBackend("other", "b2", admin.Origin{})))
	_, err = d.AddBackend("other", admin.NewBackend{Name: "b4", Address: "127.0.0.1:7995", Zone: "z"})
	must(err)
	want := d.differences()
	if len(want) != 6 {
		t.Fatalf("%d differences: %v", len(want), want)
	}
	again := testDaemon(t, with(three))
	if got := again.differences(); !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart the differences are\n%v, want\n%v", got, want)
	}
	backends, err := again.Backends("other")
	must(err)
	if b := backends[0]; b.Name != "b1" || b.Weight != 7 || b.MaxSessions != 9 ||
		b.MaxRate != "10/s burst 20" || b.Mode != "drain" {
		t.Errorf("b1 is %+v", b)
	}
	// b1 has another weight and address in the file, b2 another address, and b4 is there.
	changed := strings.NewReplacer(`name = "b1"`, `name = "b1", weight = 3`, "7997", "7994", "7998", "7992").
		Replace(three) + `, { address = "127.0.0.1:7993", name = "b4" }`
	third := testDaemon(t, with(changed))
	got := fmt.Sprint(third.differences())
	left := "[{other b1 max_sessions 0 9 false} {other b1 max_rate  10/s burst 20 false} " +
		"{other b1 mode ready drain false} {other b2 removed 127.0.0.1:7994  false}]"
	if got != left {
		t.Errorf("with another file the differences are %s, want %s", got, left)
	}
}

// TestStateTooLarge: a state that the next process could not read does not replace the one that it can.
func TestStateTooLarge(t *testing.T) {
	t.Parallel()
	state := strings.Repeat("x", 7)
	s := newStateStore(filepath.Join(t.TempDir(), "state.json"), func() any { return state })
	s.most = len(state) + len("\"\"\n")
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	state += "y"
	if err := s.save(); err == nil {
		t.Error("a state that is too large was saved")
	}
	var read string
	if err := s.load(&read); err != nil || read+"y" != state {
		t.Errorf("then the file has %q, %v", read, err)
	}
}

// TestStateThroughLinks: links in the place of the new file are replaced, and their targets stay as they are.
func TestStateThroughLinks(t *testing.T) {
	folder := t.TempDir()
	victim, path := filepath.Join(folder, "victim"), filepath.Join(folder, "state.json")
	s := newStateStore(path, func() any { return "state" })
	for name, link := range map[string]func(from, to string) error{"symbolic": os.Symlink, "hard": os.Link} {
		if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o644), link(victim, path+".new"),
			s.save()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(victim)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != "precious" {
			t.Errorf("%s link: the file that it points at is %q", name, text)
		}
		if text, err = os.ReadFile(path); err != nil || string(text) != "\"state\"\n" {
			t.Errorf("%s link: the state file is %q, %v", name, text, err)
		}
	}
}

// TestStateConcurrent saves from many goroutines. When its save returns, each finds its own change in the file.
func TestStateConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	var n atomic.Int64
	s := newStateStore(path, func() any { return n.Load() })
	var savers sync.WaitGroup
	for range 8 {
		savers.Go(func() {
			for range 20 {
				mine := n.Add(1)
				if err := s.save(); err != nil {
					t.Error(err)
				}
				text, err := os.ReadFile(path)
				var found int64
				if err == nil {
					err = json.Unmarshal(text, &found)
				}
				if err != nil || found < mine {
					t.Errorf("saved %d, found %d, %v", mine, found, err)
				}
			}
		})
	}
	savers.Wait()
}

// TestStateNotSaved: a change that cannot be saved stays in force, and the caller gets an error.
func TestStateNotSaved(t *testing.T) {
	d := testDaemon(t,
		parsed(t, fmt.Sprintf("[global]\nstate_file = %q\n", filepath.Join(t.TempDir(), "missing", "state.json"))))
	b, err := d.AddBackend("web", admin.NewBackend{Address: "127.0.0.1:9"})
	var unsaved *admin.NotSavedError
	if !errors.As(err, &unsaved) || b.Address != "127.0.0.1:9" {
		t.Errorf("%+v, %v", b, err)
	}
	if backends, _ := d.Backends("web"); len(backends) != 2 {
		t.Errorf("there are %d backends", len(backends))
	}
	if s := d.Status(); s.StateError == "" {
		t.Error("status says nothing")
	}
}

// TestSavedOverride: nothing is lost between saving and reading.
func TestSavedOverride(t *testing.T) {
	weight, limit, mode, often := uint32(0), 3, pool.Maintenance, rate.Limit{Every: time.Minute / 59, Burst: 1}
	for _, o := range []pool.Override{
		{Kind: pool.OverrideAdded, Base: pool.Spec{ID: "a", Addr: pool.At(netip.MustParseAddrPort("[fe80::1%eth0]:1")),
			Weight: 256, MaxSessions: 1, MaxRate: rate.PerSecond(70_000, 5), Tier: 65535, Zone: "z", Mode: pool.Drain,
			Check: netip.MustParseAddrPort("10.0.0.5:8008")}},
		{Kind: pool.OverrideChanged, Source: "dns", Base: pool.Spec{ID: "a"}, Weight: &weight, MaxSessions: &limit,
			MaxRate: &often, Mode: &mode},
	} {
		text, err := json.Marshal(toSaved(o))
		if err != nil {
			t.Fatal(err)
		}
		var saved savedOverride
		if err := json.Unmarshal(text, &saved); err != nil {
			t.Fatal(err)
		}
		if got, err := fromSaved(saved); err != nil || !reflect.DeepEqual(got, o) {
			t.Errorf("%+v became %+v, %v by %s", o, got, err, text)
		}
	}
}
