package daemon

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
)

// AddBackend adds a backend to a pool, until the process ends or, with a state file, for longer.
func (d *Daemon) AddBackend(name string, b admin.NewBackend) (admin.Backend, error) {
	g := d.give(admin.Origin{By: b.By, Local: b.Local})
	answer, err := d.addBackend(name, b, g)
	return g.answer(answer, err)
}

func (d *Daemon) addBackend(name string, b admin.NewBackend, g *giving) (admin.Backend, error) {
	end, err := d.beginChange()
	if err != nil {
		return admin.Backend{}, err
	}
	defer end()
	s, err := d.served(name)
	if err != nil {
		return admin.Backend{}, err
	}
	b.Local = false // it is no key of a backend
	spec, err := newBackendSpec(b)
	if err != nil {
		return admin.Backend{}, err
	}
	if err := s.pool.Add(spec); err != nil {
		return admin.Backend{}, s.explained(spec.ID, err)
	}
	g.backend(s.pool, spec.ID)
	return d.changedBackend(s, spec.ID)
}

// newBackendSpec parses a backend as one of a file of backends, so that the same rules apply to both.
func newBackendSpec(b admin.NewBackend) (pool.Spec, error) {
	text, err := json.Marshal(map[string]any{"backends": []any{b}})
	if err != nil {
		return pool.Spec{}, err
	}
	found, err := conf.ParseBackends("request", text)
	var mistake *conf.Error
	if errors.As(err, &mistake) {
		return pool.Spec{}, requestError(mistake)
	}
	if err != nil {
		return pool.Spec{}, err
	}
	return BackendSpecs(found)[0], nil
}

// ChangeBackend changes a backend's weight, limits or mode.
func (d *Daemon) ChangeBackend(name, id string, c admin.BackendChange) (admin.Backend, error) {
	g := d.give(admin.Origin{By: c.By, Local: c.Local})
	answer, err := d.changeBackend(name, id, c, g)
	return g.answer(answer, err)
}

func (d *Daemon) changeBackend(name, id string, c admin.BackendChange, g *giving) (admin.Backend, error) {
	end, err := d.beginChange()
	if err != nil {
		return admin.Backend{}, err
	}
	defer end()
	s, err := d.served(name)
	if err != nil {
		return admin.Backend{}, err
	}
	if err := validChange(c); err != nil {
		return admin.Backend{}, err
	}
	if _, err := s.info(id); err != nil {
		return admin.Backend{}, err
	}
	var failures []error
	if c.Weight != nil {
		failures = append(failures, s.pool.SetWeight(id, uint32(*c.Weight)))
	}
	if c.MaxSessions != nil {
		failures = append(failures, s.pool.SetMaxSessions(id, *c.MaxSessions))
	}
	if c.MaxRate != nil {
		l, err := pool.ParseMaxRate(*c.MaxRate)
		if err == nil {
			err = s.pool.SetMaxRate(id, l)
		}
		failures = append(failures, err)
	}
	if c.Mode != nil {
		d.drains.cancel(name, id)
		failures = append(failures, s.pool.SetMode(id, poolMode(*c.Mode)))
	}
	if err := errors.Join(failures...); err != nil {
		return admin.Backend{}, s.explained(id, err)
	}
	g.settings(s.pool, id, time.Time{}, changedFields(c)...)
	return d.changedBackend(s, id)
}

// changedFields returns the settings that a change is about.
func changedFields(c admin.BackendChange) (fields []string) {
	for field, is := range map[string]bool{
		fieldWeight: c.Weight != nil, fieldMaxSessions: c.MaxSessions != nil, fieldMaxRate: c.MaxRate != nil,
		fieldMode: c.Mode != nil,
	} {
		if is {
			fields = append(fields, field)
		}
	}
	return fields
}

// validChange checks every value before any of them is changed.
func validChange(c admin.BackendChange) error {
	if len(changedFields(c)) == 0 {
		return &admin.RequestError{Field: "body", Value: "{}", Want: "weight, max_sessions, max_rate or mode"}
	}
	return c.Check()
}

// RemoveBackend takes a backend out of its pool.
func (d *Daemon) RemoveBackend(name, id string, from admin.Origin) (*admin.Sharing, error) {
	g := d.give(from)
	if err := d.removeBackend(name, id, g); err != nil {
		return nil, err
	}
	return g.await(), nil
}

func (d *Daemon) removeBackend(name, id string, g *giving) error {
	end, err := d.beginChange()
	if err != nil {
		return err
	}
	defer end()
	s, err := d.served(name)
	if err != nil {
		return err
	}
	d.drains.cancel(name, id)
	if err := s.pool.Remove(id); err != nil {
		return s.explained(id, err)
	}
	g.backend(s.pool, id)
	return d.saveState()
}

// info returns a backend of the pool. The error wraps pool.ErrUnknownBackend.
func (s *served) info(id string) (pool.BackendInfo, error) {
	if b, known := s.pool.Backend(id); known {
		return b, nil
	}
	return pool.BackendInfo{}, s.explained(id, pool.ErrUnknownBackend)
}

// changedBackend saves the state after a change of a backend, and returns the backend.
func (d *Daemon) changedBackend(s *served, id string) (admin.Backend, error) {
	saved := d.saveState()
	b, err := s.info(id)
	if err != nil {
		return admin.Backend{}, err // it was removed meanwhile
	}
	return d.backend(s.pool.Name(), b), saved
}
