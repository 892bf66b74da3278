package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// startMosquitto starts a broker at an address of this machine, and returns when it listens.
func startMosquitto(t *testing.T, address string) *harness.Process {
	t.Helper()
	host, port, _ := strings.Cut(address, ":")
	config := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s %s\nallow_anonymous true\npersistence false\n", port, host)
	if os.Getuid() == 0 {
		text += "user root\n" // else it becomes a user that may not exist
	}
	check(t, os.WriteFile(config, []byte(text), 0o644))
	p := harness.Start(t, harness.Command{Path: harness.Tool(t, "mosquitto"), Args: []string{"-c", config}})
	harness.Eventually(t, "the broker listens", func() error {
		c, _, err := harness.DialFrom(address)
		if err == nil {
			c.Close()
		}
		return err
	})
	return p
}

// A mqttBalancer is a balancer before two brokers.
type mqttBalancer struct {
	*harness.Balancer
	at       string    // where it listens
	brokers  [2]string // their addresses; they are named b1 and b2
	sessions int       // that have ended
}

// startMQTT starts a balancer whose pool has these lines.
func startMQTT(t *testing.T, lines string) *mqttBalancer {
	t.Helper()
	b := &mqttBalancer{at: harness.FreeAddress(t), brokers: [2]string{harness.FreeAddress(t), harness.FreeAddress(t)}}
	b.Balancer = harness.StartBalancer(t, fmt.Sprintf("[listener.mqtt]\naddress = %q\npool = 'brokers'\n"+
		"[pool.brokers]\nbackends = %s\n%s\n", b.at, harness.BackendList(b.brokers[:]...), lines))
	return b
}

// publish has a client publish a message with QoS 1, and returns the broker that it came to.
func (b *mqttBalancer) publish(t *testing.T, args ...string) (broker string) {
	t.Helper()
	host, port, _ := strings.Cut(b.at, ":")
	harness.MustRun(t, harness.Command{Path: harness.Tool(t, "mosquitto_pub"),
		Args: append([]string{"-h", host, "-p", port, "-t", "readings", "-m", "20", "-q", "1"}, args...)})
	b.sessions++
	return b.WaitSessions(t, b.sessions)[b.sessions-1].Backend
}

// mqttVersions are arguments of clients that speak each version of MQTT.
var mqttVersions = [][]string{
	{"-V", "mqttv31"}, {"-V", "mqttv311", "--will-topic", "gone", "--will-payload", "yes"},
	{"-V", "mqttv5", "-D", "connect", "user-property", "site", "north"},
}

// publishAll has 18 devices publish, in all versions of MQTT, and returns the broker of each.
func (b *mqttBalancer) publishAll(t *testing.T) map[string]string {
	t.Helper()
	came := map[string]string{}
	for i := range 18 {
		id := fmt.Sprint("device-", i)
		came[id] = b.publish(t, append([]string{"-i", id}, mqttVersions[i%len(mqttVersions)]...)...)
	}
	return came
}

// TestMQTTHash holds that clients of one address come to brokers by their client identifier, to the same one each time,
// in all versions of MQTT; that explain knows it; and that clients without one go by their address.
func TestMQTTHash(t *testing.T) {
	t.Parallel()
	b := startMQTT(t, "algorithm = 'client_hash'\nhash_key = 'mqtt_client_id'")
	for _, at := range b.brokers {
		startMosquitto(t, at)
	}
	first, spread := b.publishAll(t), map[string]bool{}
	for id, broker := range b.publishAll(t) {
		if broker != first[id] {
			t.Errorf("%s came to %s and then to %s", id, first[id], broker)
		}
		spread[broker] = true
		stdout, _, _ := b.Command(t, "explain", "--mqtt-client-id", id, "192.0.2.9")
		if want := fmt.Sprintf("would get %s ", broker); !strings.Contains(stdout, want) {
			t.Errorf("%s: want %q in %s", id, want, stdout)
		}
	}
	if len(spread) != 2 {
		t.Errorf("18 devices came to %v", spread)
	}
	stdout, _, _ := b.Command(t, "explain", "127.0.0.1")
	for range 3 {
		if broker := b.publish(t); !strings.Contains(stdout, "would get "+broker+" ") {
			t.Errorf("without an identifier a client came to %s: %s", broker, stdout)
		}
	}
}

// TestMQTTSticky holds that a client identifier returns to its broker, moves with the broker's loss, and stays where it
// went, also when the broker is back; and that a reload to another key forgets all.
func TestMQTTSticky(t *testing.T) {
	t.Parallel()
	const keys = "algorithm = 'round_robin'\nsticky = { ttl = '1h', key = %q }\n" +
		"[pool.brokers.health]\ninterval = '50ms'\nfast_interval = '20ms'\nrise = 1"
	b := startMQTT(t, fmt.Sprintf(keys, "mqtt_client_id"))
	lost := startMosquitto(t, b.brokers[0])
	startMosquitto(t, b.brokers[1])
	b.waitEligible(t, 2)
	first := b.publishAll(t)
	if n := devicesAt(first, "b1"); n < 5 || n > 13 { // they come in turn
		t.Errorf("of 18 devices %d came to b1", n)
	}
	for id, broker := range b.publishAll(t) {
		if broker != first[id] {
			t.Errorf("%s came to %s and then to %s", id, first[id], broker)
		}
	}

	lost.Kill(t)
	b.waitEligible(t, 1)
	if moved := b.publishAll(t); devicesAt(moved, "b2") != len(moved) {
		t.Errorf("without b1 devices came to %v", moved)
	}
	startMosquitto(t, b.brokers[0])
	b.waitEligible(t, 2)
	if stayed := b.publishAll(t); devicesAt(stayed, "b2") != len(stayed) {
		t.Errorf("with b1 back devices came to %v", stayed)
	}

	text, err := os.ReadFile(b.File())
	check(t, err)
	b.Reload(t, strings.Replace(string(text), `key = "mqtt_client_id"`, `key = "client_ip"`, 1))
	if one := b.publishAll(t); devicesAt(one, one["device-0"]) != len(one) {
		t.Errorf("by address devices came to %v", one)
	}
}

// TestMQTTSubscriberMoves holds that a subscriber which stays connected moves when its broker is lost, and gets what is
// published there under the same identifier's broker.
func TestMQTTSubscriberMoves(t *testing.T) {
	t.Parallel()
	b := startMQTT(t, "algorithm = 'client_hash'\nhash_key = 'mqtt_client_id'")
	brokers := map[string]*harness.Process{
		"b1": startMosquitto(t, b.brokers[0]), "b2": startMosquitto(t, b.brokers[1]),
	}
	host, port, _ := strings.Cut(b.at, ":")
	sub := harness.Start(t, harness.Command{Path: harness.Tool(t, "mosquitto_sub"),
		Args: []string{"-h", host, "-p", port, "-i", "meter-7", "-t", "readings", "-q", "1"}})
	had := b.waitRelayed(t, "")
	brokers[had].Kill(t)
	has := b.waitRelayed(t, had)
	direct := b.brokers[0]
	if has == "b2" {
		direct = b.brokers[1]
	}
	host, port, _ = strings.Cut(direct, ":")
	harness.Eventually(t, "the subscriber gets a message", func() error {
		harness.MustRun(t, harness.Command{Path: harness.Tool(t, "mosquitto_pub"),
			Args: []string{"-h", host, "-p", port, "-t", "readings", "-m", "21", "-q", "1"}})
		if !strings.Contains(sub.Stdout(), "21") {
			return errors.New(sub.Stdout() + sub.Stderr())
		}
		return nil
	})
}

// TestMQTTOthers holds that a client which is not MQTT reaches a broker, and that one which says nothing is refused.
func TestMQTTOthers(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	at := harness.FreeAddress(t)
	b := harness.StartBalancer(t, fmt.Sprintf("[listener.mqtt]\naddress = %q\npool = 'brokers'\n"+
		"inspect_timeout = '300ms'\n[pool.brokers]\nbackends = [%q]\nsticky = { ttl = '1h', key = 'mqtt_client_id' }\n", at, backend.Address()))
	c := harness.Dial(t, at)
	check(t, harness.PingPong(c, 3, 1000))
	check(t, c.Close())
	if line := b.WaitSession(t, c.LocalAddr()); line.Reason != "client_closed" || line.BytesIn != 3000 {
		t.Errorf("%s", line.Text)
	}
	silent := harness.Dial(t, at)
	began := time.Now()
	line := b.WaitSession(t, silent.LocalAddr())
	if line.Reason != "inspect_timeout" || time.Since(began) > 3*time.Second {
		t.Errorf("after %v: %s", time.Since(began), line.Text)
	}
}

// waitEligible waits until so many brokers are eligible.
func (b *mqttBalancer) waitEligible(t *testing.T, n int) {
	t.Helper()
	harness.Eventually(t, "brokers are eligible", func() error {
		var pool struct{ Eligible int }
		b.Ask(t, "GET", "/v1/pools/brokers", nil, &pool)
		if pool.Eligible != n {
			return fmt.Errorf("%d, want %d", pool.Eligible, n)
		}
		return nil
	})
}

// waitRelayed waits until the only session has another broker than that, and returns it.
func (b *mqttBalancer) waitRelayed(t *testing.T, but string) (broker string) {
	t.Helper()
	harness.Eventually(t, "a session is relayed", func() error {
		var list struct {
			Sessions []struct{ Backend, Phase string }
		}
		b.Ask(t, "GET", "/v1/sessions", nil, &list)
		if len(list.Sessions) != 1 || list.Sessions[0].Phase != "relaying" || list.Sessions[0].Backend == but {
			return fmt.Errorf("%+v", list)
		}
		broker = list.Sessions[0].Backend
		return nil
	})
	return broker
}

// devicesAt returns how many devices came to a broker.
func devicesAt(came map[string]string, broker string) (n int) {
	for _, at := range came {
		if at == broker {
			n++
		}
	}
	return n
}
