package main

import (
	"context"
	"errors"
	"time"
)

// A besieged is a load generator beside which a flood is under way. It is for one goroutine. The steps are those of
// client.
type besieged struct {
	loader
	job   job // the flood's
	lead  time.Duration
	dir   string
	flood *client // nil before ready
}

func (s *besieged) ready(ctx context.Context, within time.Duration) error {
	if err := s.loader.ready(ctx, within); err != nil {
		return err
	}
	var err error
	if s.flood, err = startClient(s.job, s.dir); err != nil {
		return err
	}
	return s.flood.ready(ctx, within)
}

// run lets the load generator do its job, and the flood begins when the lead is over. The result has both.
func (s *besieged) run(ctx context.Context, within time.Duration) (loadResult, error) {
	type outcome struct {
		result loadResult
		err    error
	}
	worked := make(chan outcome, 1)
	go func() { // it ends within the given time
		r, err := s.loader.run(ctx, within)
		worked <- outcome{r, err}
	}()
	err := pause(ctx, s.lead)
	var flooded loadResult
	if err == nil {
		flooded, err = s.flood.run(ctx, within)
	}
	w := <-worked
	w.result.Flood = flooded.Flood
	return w.result, errors.Join(w.err, err)
}

func (s *besieged) cpu() (cpuReading, error) {
	r, err := s.loader.cpu()
	if s.flood == nil || err != nil {
		return r, err
	}
	f, err := s.flood.cpu()
	return cpuReading{clock: r.clock + f.clock, stat: r.stat + f.stat}, err
}

func (s *besieged) finish(ctx context.Context, within time.Duration) error {
	return errors.Join(s.loader.finish(ctx, within), s.flood.finish(ctx, within))
}

func (s *besieged) close() error {
	err := s.loader.close()
	if s.flood != nil {
		err = errors.Join(err, s.flood.close())
	}
	return err
}
