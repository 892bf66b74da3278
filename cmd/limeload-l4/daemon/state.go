package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/limeload/limeload-l4/conf/file"
)

// maxStateBytes bounds what is read of a state file: far more than ten thousand changed backends come to.
const maxStateBytes = 64 << 20

// damagedSuffix is added to the name of a state file that could not be read, which is set aside.
const damagedSuffix = ".damaged"

// A stateStore keeps what was changed at run time in a file, whole at every moment: after a crash it holds the state of before a
// change or of after it. Its methods may be called from any goroutine; its zero value is of no use, see newStateStore.
type stateStore struct {
	// set once, then read-only
	path    string // "" is no file: then nothing is kept, and no save fails
	disk    disk
	collect func() any // the whole state, as JSON will have it

	turn sync.Cond // waited on by savers while another one writes

	// turn.L guards the fields below
	asked, saved uint64 // saves begun; the last of them whose state is in the file, or could not be
	writing      bool
	err          error // of the last write
}

// A disk is the calls that writing a file needs, so that a test can stop before each of them.
type disk struct {
	create func(path string) (diskFile, error)
	rename func(from, to string) error
	sync   func(folder string) error
}

// A diskFile is an *os.File that is written to.
type diskFile interface {
	io.WriteCloser
	Sync() error
}

// realDisk is the operating system's.
func realDisk() disk {
	return disk{
		create: func(path string) (diskFile, error) {
			// One that a crash has left is removed first. The new file is this process's own: nobody who may write to
			// the folder gets the state written somewhere else by a link.
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
		},
		rename: os.Rename,
		sync: func(folder string) error {
			f, err := os.Open(folder)
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Sync()
		},
	}
}

func newStateStore(path string, collect func() any) *stateStore {
	return &stateStore{path: path, disk: realDisk(), collect: collect, turn: sync.Cond{L: new(sync.Mutex)}}
}

// save writes the state as it is now or a little later, and returns when it is on the disk. Those who save at once share a write.
func (s *stateStore) save() error {
	if s.path == "" {
		return nil
	}
	s.turn.L.Lock()
	defer s.turn.L.Unlock()
	s.asked++
	for mine := s.asked; s.saved < mine; {
		if s.writing {
			s.turn.Wait()
			continue
		}
		s.writing = true
		upTo := s.asked
		s.turn.L.Unlock()
		err := s.write()
		s.turn.L.Lock()
		s.writing, s.saved, s.err = false, upTo, err
		s.turn.Broadcast()
	}
	return s.err
}

// outcome is whether the file was written since the start, or was to be, and why that failed last; nil if it did not.
func (s *stateStore) outcome() (written bool, err error) {
	s.turn.L.Lock()
	defer s.turn.L.Unlock()
	return s.saved > 0, s.err
}

// write replaces the file: a new one is written whole and synced, renamed over the old one, and the folder synced, since else the
// new name may be lost with the power (fsync(2)).
func (s *stateStore) write() error {
	data, err := json.MarshalIndent(s.collect(), "", "  ")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	next := s.path + ".new"
	f, err := s.disk.create(next)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = s.disk.rename(next, s.path)
	}
	if err == nil {
		err = s.disk.sync(filepath.Dir(s.path))
	}
	if err != nil {
		return fmt.Errorf("write state %s: %w", s.path, err)
	}
	return nil
}

// load reads the file into state, which is left as it was where there is no file yet. A file that cannot be understood is set
// aside; the error says where.
func (s *stateStore) load(state any) error {
	if s.path == "" {
		return nil
	}
	data, err := file.Read(s.path, maxStateBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, file.ErrTooLarge):
		return s.setAside(fmt.Errorf("it has more than %d bytes", maxStateBytes))
	case err != nil:
		return fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(data, state); err != nil {
		return s.setAside(err)
	}
	return nil
}

// setAside keeps a file that is of no use for whoever wants to look at it. The error tells of it, and of why.
func (s *stateStore) setAside(why error) error {
	aside := s.path + damagedSuffix
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("state file %s is damaged: %w; and cannot be set aside: %w", s.path, why, err)
	}
	return fmt.Errorf("state file is damaged, and was renamed to %s: %w", aside, why)
}
