package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/limeload/limeload-l4/test/harness"
)

// forward listens on a port of loopback and passes each connection on to a Unix socket, as "ssh -L" does. It returns
// the address of the page there.
func forward(t testing.TB, socket string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		cancel()
		work.Wait()
	})
	work.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { splice(ctx, client, socket) })
		}
	})
	return "http://" + l.Addr().String() + "/"
}

// splice passes a connection on to a Unix socket until either side ends, or ctx.
func splice(ctx context.Context, client net.Conn, socket string) {
	server, err := net.Dial("unix", socket)
	if err != nil {
		client.Close()
		return
	}
	end := func() {
		client.Close()
		server.Close()
	}
	stop := context.AfterFunc(ctx, end)
	defer stop()
	var answers sync.WaitGroup
	answers.Go(func() {
		_, _ = io.Copy(client, server)
		end()
	})
	_, _ = io.Copy(server, client)
	end()
	answers.Wait()
}

// shot keeps a picture of what a tab shows, for people to look at: build/screenshots/NAME.png.
func (b *tab) shot(t testing.TB, name string, whole bool) {
	t.Helper()
	dir := filepath.Join("..", "build", "screenshots")
	check(t, os.MkdirAll(dir, 0o755))
	picture, err := chromedp.Call(b.ctx, page.CaptureScreenshot,
		page.CaptureScreenshotParams{CaptureBeyondViewport: &whole})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, name+".png"), picture.Data, 0o644))
}

// prefer makes a tab prefer light or dark.
func (b *tab) prefer(t testing.TB, scheme string) {
	t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	check(t, err)
}

// manyBackends returns the text of n backends b1, b2 and so on, each at an address of its own of the same server.
func manyBackends(n int, port string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{ address = \"127.1.%d.%d:%s\", name = \"b%d\" }, ", i/250, i%250+1, port, i+1)
	}
	return b.String()
}

// A pageWorld is a balancer that has something of everything that the page shows.
type pageWorld struct {
	*harness.Balancer
	page string // the address of the page, as it is forwarded to the admin socket
	port string // at which a backend listens on every address of loopback
}

// startPageWorld starts the balancer with three sessions, of which none is idle for long, and one refusal.
func startPageWorld(t *testing.T) *pageWorld {
	t.Helper()
	_, port, err := net.SplitHostPort(harness.ServeOn(t, "0.0.0.0:0", harness.Echo).Address())
	check(t, err)
	greeter := harness.Serve(t, harness.SpeakFirst("554 "+hostile+"\r\n")).Address()
	dead := harness.FreeAddress(t)
	primary := harness.StartRedis(t)
	_, primaryPort, err := net.SplitHostPort(primary.Address)
	check(t, err)
	replica := harness.StartRedisOn(t, harness.FreePort(t), "--replicaof", "127.0.0.1 "+primaryPort)
	var config strings.Builder
	for _, pool := range []struct{ name, backends, health string }{
		{"keys", fmt.Sprintf(`{ name = "k1", address = "127.0.0.21:%[1]s" }, { name = "k2", address = "127.0.0.22:%[1]s" }`,
			port), ""},
		{"web", fmt.Sprintf(`{ name = "web-1", address = "127.0.0.11:%[1]s", tier = 1, weight = 2 },
			{ name = "web-2", address = "127.0.0.12:%[1]s" }, { name = "web-3", address = %[2]q }`, port, dead),
			`type = "tcp"`},
		{"redis", fmt.Sprintf(`{ name = "primary", address = %q }, { name = "replica", address = %q }`, primary.Address,
			replica.Address), "type = \"redis\"\nrole = \"primary\""},
		{"none", fmt.Sprintf(`{ name = "gone", address = %q }`, dead), `type = "tcp"`},
		{"ends", fmt.Sprintf(`{ name = "e1", address = "127.0.0.31:%s" }`, port), ""},
		{"names", fmt.Sprintf(`{ name = "plain", address = %q }`, greeter), `type = "smtp"`},
		{"many", manyBackends(1000, port), ""},
	} {
		fmt.Fprintf(&config, "[listener.%[1]s]\naddress = %[2]q\npool = %[1]q\n[pool.%[1]s]\nbackends = [%[3]s]\n", pool.name,
			harness.FreeAddress(t), pool.backends)
		if pool.health != "" {
			fmt.Fprintf(&config, "[pool.%s.health]\n%s\ninterval = \"200ms\"\nfast_interval = \"50ms\"\n", pool.name,
				pool.health)
		}
	}
	w := &pageWorld{Balancer: harness.StartBalancer(t, config.String()), port: port}
	w.page = forward(t, w.AdminSocket())
	for range 3 {
		echo(t, w.Dial(t, "web"))
	}
	refused, _, err := harness.DialFrom(w.Address(t, "none"))
	if !errors.Is(err, syscall.ECONNRESET) { // as connect says if the reset is very quick
		check(t, err)
		expectReset(t, refused)
		check(t, refused.Close())
	}
	return w
}

// hostile is a text that does something where it is taken for markup.
const hostile = `<img src=x onerror="window.hostile=1"><script>window.hostile=1</script>`

// renaming is the page with one backend for each of these names in place of that of the pool "names". No configuration
// may have such names; the page must not depend on that. changed gets the path of each change.
func (w *pageWorld) renaming(t testing.TB, names []string, changed chan<- string) string {
	t.Helper()
	to, err := url.Parse(w.page)
	check(t, err)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(r *http.Response) error {
		if !strings.HasSuffix(r.Request.URL.Path, "/names/backends") {
			return nil
		}
		var answer struct {
			Backends []map[string]any `json:"backends"`
		}
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil || len(answer.Backends) == 0 {
			return err
		}
		one := answer.Backends[0]
		answer.Backends = nil
		for _, name := range names {
			renamed := maps.Clone(one)
			renamed["name"] = name
			answer.Backends = append(answer.Backends, renamed)
		}
		body, err := json.Marshal(answer)
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.Header.Del("Content-Length")
		r.ContentLength = -1
		return err
	}
	s := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			changed <- r.URL.Path
			answer.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(answer, "{}")
			return
		}
		proxy.ServeHTTP(answer, r)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return s.URL + "/"
}

// echo sends a byte through a session, and waits for it.
func echo(t testing.TB, c *net.TCPConn) {
	t.Helper()
	_, err := c.Write([]byte("x"))
	check(t, err)
	_, err = io.ReadFull(c, make([]byte, 1))
	check(t, err)
}

// mode returns the mode of a backend, as the API says.
func (w *pageWorld) mode(t testing.TB, pool, backend string) string {
	t.Helper()
	var b struct{ Mode string }
	w.Ask(t, "GET", "/v1/pools/"+pool+"/backends/"+backend, nil, &b)
	return b.Mode
}

func hostname(t testing.TB) string {
	t.Helper()
	name, err := os.Hostname()
	check(t, err)
	return name
}

// narrow is an expression: the page does not scroll sideways.
const narrow = `document.documentElement.scrollWidth <= innerWidth`

// cell is an expression: the text in a column of the row of a backend.
func cell(backend, column string) string {
	return fmt.Sprintf(`([...document.querySelectorAll(".pool tbody tr")].find((r) =>
		r.querySelector(".link").innerText === %q)?.querySelector("td.%s").innerText ?? "")`, backend, column)
}

// expect checks that an expression is true now.
func (b *tab) expect(t testing.TB, what, expression string) {
	t.Helper()
	if !eval[bool](t, b, "Boolean("+expression+")") {
		t.Errorf("%s: the page shows\n%s", what, eval[string](t, b, "document.body.innerText"))
	}
}

// eval runs statements.
func (b *tab) eval(t testing.TB, statements string) {
	t.Helper()
	b.do(t, chromedp.Evaluate[chromedp.Void](statements))
}

// silent checks that the browser has complained about nothing.
func (b *tab) silent(t testing.TB) {
	t.Helper()
	for _, complaint := range b.complained() {
		t.Errorf("the browser complains: %s", complaint)
	}
}

// press presses keys.
func (b *tab) press(t testing.TB, keys string) {
	t.Helper()
	b.do(t, chromedp.KeyEvent(keys))
}

// tabTo presses Tab until the element with this text has the focus.
func (b *tab) tabTo(t testing.TB, text string) {
	t.Helper()
	var passed []string
	for range 300 {
		now := eval[string](t, b, `document.activeElement.innerText ?? ""`)
		if now == text {
			b.expect(t, "the focus can be seen", `document.activeElement.matches(":focus-visible")`)
			return
		}
		passed = append(passed, now)
		b.press(t, kb.Tab)
	}
	t.Fatalf("Tab does not come to %q, but to %q", text, passed)
}

// openPool opens a pool by its name.
func (b *tab) openPool(t testing.TB, name string) {
	t.Helper()
	b.await(t, `document.querySelector("#pool-`+name+`")`)
	b.eval(t, `{ const pool = document.querySelector("#pool-`+name+`"); pool.scrollIntoView();
		const toggle = pool.querySelector(".toggle"); if (toggle.ariaExpanded === "false") toggle.click() }`)
}

// accessible checks what a screen reader finds: every control, dialog and table has a name, tables have headers, and
// the page has its landmarks.
func (b *tab) accessible(t testing.TB) {
	t.Helper()
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	check(t, err)
	named := map[string]bool{
		"button": true, "link": true, "textbox": true, "searchbox": true, "combobox": true, "checkbox": true,
		"spinbutton": true, "dialog": true, "table": true, "navigation": true, "columnheader": true, "rowheader": true,
		"progressbar": true, "search": true, "ProgressIndicator": true, "SearchBox": true,
	}
	counts := map[string]int{}
	for _, n := range tree.Nodes {
		role := axText(n.Role)
		if n.Ignored {
			continue
		}
		counts[role]++
		if named[role] && axText(n.Name) == "" {
			t.Errorf("a %s has no name", role)
		}
	}
	if counts["dialog"] == 0 && (counts["banner"] != 1 || counts["navigation"] != 1 || counts["main"] != 1) {
		t.Errorf("the landmarks are %v", counts)
	}
	if counts["button"] == 0 || counts["table"] > 0 && (counts["columnheader"] < 3*counts["table"] || counts["row"] == 0) {
		t.Errorf("the tree has %v", counts)
	}
}

func axText(v *accessibility.Value) string {
	var text string
	if v == nil || json.Unmarshal(v.Value, &text) != nil {
		return ""
	}
	return text
}

// contrasts checks that every text that is shown has a contrast of 4.5 or more on its ground (WCAG 2.2, 1.4.3), except
// on controls that are disabled.
func (b *tab) contrasts(t testing.TB) {
	t.Helper()
	for _, low := range eval[[]string](t, b, lowContrasts) {
		t.Errorf("low contrast: %s", low)
	}
}

const lowContrasts = `(() => {
	const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgba = (colour) => {
		paint.clearRect(0, 0, 1, 1);
		paint.fillStyle = colour;
		paint.fillRect(0, 0, 1, 1);
		return [...paint.getImageData(0, 0, 1, 1).data];
	};
	const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
		.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
		.reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
	const ground = (e) => {
		for (; e; e = e.parentElement) {
			const colour = rgba(getComputedStyle(e).backgroundColor);
			if (colour[3] > 250) return colour;
		}
		return [255, 255, 255];
	};
	const low = new Set();
	const within = document.querySelector("dialog:last-of-type") || document.body;
	for (const e of within.querySelectorAll("*")) {
		const text = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
		if (!text || e.closest(":disabled, svg, option, .unseen") || !e.checkVisibility()) continue;
		const [a, b] = [luminance(rgba(getComputedStyle(e).color)), luminance(ground(e))];
		const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (contrast < 4.5) low.add(contrast.toFixed(2) + " " + text.slice(0, 40) + " ." + e.className);
	}
	return [...low];
})()`
