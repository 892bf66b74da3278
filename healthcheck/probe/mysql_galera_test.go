package probe

import (
	"fmt"
	"testing"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// TestMySQLGalera takes a real node through the states that one node alone can have.
func TestMySQLGalera(t *testing.T) {
	t.Parallel()
	port := harness.FreePort(t)
	m := startRealMariaDB(t, "--wsrep-on=ON", "--wsrep-provider=/usr/lib/galera/libgalera_smm.so", "--binlog-format=ROW",
		"--innodb-autoinc-lock-mode=2", "--wsrep-cluster-address=gcomm://", "--wsrep-new-cluster",
		"--wsrep-node-address=127.0.0.1", "--wsrep-sst-method=skip", fmt.Sprintf("--wsrep-provider-options="+
			"gmcast.listen_addr=tcp://127.0.0.1:%d;ist.recv_bind=127.0.0.1;base_port=%d", port, port))
	got := eventuallySays(t, anyMySQL, m.to, "")
	if got.Role != healthcheck.RolePrimary || got.Detail != "galera node, synced" {
		t.Errorf("a synced node is %+v", got)
	}
	donor := anyMySQL
	donor.AllowDonor = true
	m.Do(t, "SET GLOBAL wsrep_desync = ON")
	eventuallySays(t, anyMySQL, m.to, "galera: the node is a donor or desynced")
	if got := eventuallySays(t, donor, m.to, ""); got.Detail != "galera node, donor/desynced" {
		t.Errorf("a donor is %+v", got)
	}
	m.Do(t, "SET GLOBAL wsrep_desync = OFF")
	eventuallySays(t, anyMySQL, m.to, "")

	m.Do(t, "SET GLOBAL wsrep_reject_queries = ALL")
	eventuallySays(t, anyMySQL, m.to, "galera: the node rejects queries")
	m.Do(t, "SET GLOBAL wsrep_reject_queries = NONE")
	eventuallySays(t, anyMySQL, m.to, "")
}
