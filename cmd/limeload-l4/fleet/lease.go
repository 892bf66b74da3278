package fleet

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

const (
	// leaseTime is how long the keys of a node outlive it. A member of etcd that hangs is left after 6 s, so that a node
	// that looks for another one does not vanish.
	leaseTime = 12 * time.Second
	// renewEvery is how often the lease is renewed.
	renewEvery = leaseTime / 4
	// leaveTimeout bounds how long Leave takes.
	leaveTimeout = 2 * time.Second
)

// renew renews the lease, at once and then from time to time, until ctx is done or etcd does not answer. The error says
// why.
func (f *Fleet) renew(ctx context.Context, s *etcd.Session) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		if lease := f.leaseID(); lease != 0 {
			request, cancel := s.Request()
			_, err := s.Client().KeepAliveOnce(request, lease)
			cancel()
			switch {
			case errors.Is(err, rpctypes.ErrLeaseNotFound):
				f.dropLease(lease)
			case err != nil:
				return s.Failure(err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// leaseID returns the lease; 0 for none.
func (f *Fleet) leaseID() clientv3.LeaseID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return clientv3.LeaseID(f.lease)
}

// dropLease records that etcd does not have a lease any more, nor what was said under it. The writer gets another one.
func (f *Fleet) dropLease(lease clientv3.LeaseID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if clientv3.LeaseID(f.lease) != lease {
		return
	}
	f.lease = 0
	for key := range f.said {
		f.unsaid[key] = struct{}{}
	}
	f.poke()
}

// grantLease gets a lease.
func (f *Fleet) grantLease(s *etcd.Session) error {
	ctx, cancel := s.Request()
	defer cancel()
	r, err := s.Client().Grant(ctx, int64(leaseTime/time.Second))
	if err != nil {
		return s.Failure(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lease = int64(r.ID)
	return nil
}

// Leave ends this node's lease, and with it all that it says. It takes up to 2 s. Run must have returned.
func (f *Fleet) Leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	lease := f.leaseID()
	for _, endpoint := range f.endpointsFrom(f.Link().Endpoint) {
		if lease == 0 || ctx.Err() != nil {
			return
		}
		if f.revoke(ctx, endpoint, lease) == nil {
			f.dropLease(lease)
			return
		}
	}
}

// revoke ends a lease at a member of etcd.
func (f *Fleet) revoke(ctx context.Context, endpoint string, lease clientv3.LeaseID) error {
	s, err := f.o.Login.Open(ctx, endpoint)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err = s.Client().Revoke(ctx, lease); errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}
