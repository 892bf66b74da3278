package test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestPage opens the page of the admin address in Chromium, before a running balancer. One browser serves all parts,
// and build/screenshots keeps what it shows, for people to look at.
func TestPage(t *testing.T) {
	t.Parallel()
	browser := startChromium(t)
	w := startPageWorld(t)
	for name, part := range map[string]func(*testing.T, *chromium, *pageWorld){
		"views": pageViews, "keyboard": pageKeyboard, "names": pageNames, "address": pageAddress,
		"policy": pagePolicy, "phone": pagePhone, "sessions": pageSessions, "numbers": pageNumbers,
		"hidden": pageHidden,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			part(t, browser, w)
		})
	}
}

// pageViews looks at every view in light and dark, at a thousand backends, and at what the browser complains about.
func pageViews(t *testing.T, browser *chromium, w *pageWorld) {
	b := browser.open(t, w.page, 1440, 1000)
	b.prefer(t, "light")
	b.await(t, ``+cell("web-2", "sessions")+` === "3"`)
	b.await(t, `document.querySelector("#state").innerText.includes("Serving")`)
	b.await(t, `document.querySelectorAll(".tile")[1].innerText.match(/\d/)`) // a rate needs two answers
	for what, expression := range map[string]string{
		"a dead backend": cell("web-3", "verdict") + `.startsWith("✕Unhealthy")`,
		"why":            cell("web-3", "eligible") + ` === "✕No\nunhealthy"`,
		"its reason":     cell("web-3", "reason") + ` === "connect refused"`,
		"a role": `[...document.querySelectorAll(".pool tbody th")].some((h) =>
			h.innerText.replace(/\s+/g, " ").startsWith("replica replica"))`,
		"the other role":     cell("replica", "eligible") + ` === "–Not now\nwrong role"`,
		"what a check found": cell("primary", "reason") + `.startsWith("primary with ")`,
		"a refusal": `[...document.querySelectorAll(".listeners tr")].some((r) =>
			r.innerText.includes("none") && r.innerText.includes("no backend 1"))`,
		"a pool without eligible backends": `document.querySelector(".notices").innerText.includes("Pool none: no backend")`,
		"the title counts troubles":        `document.title.startsWith("(2) ")`,
		"the machine":                      `document.querySelector("#host").innerText === "` + hostname(t) + `"`,
		"no table wider than the page":     narrow,
	} {
		b.expect(t, what, expression)
	}
	for _, scheme := range []string{"light", "dark"} {
		b.prefer(t, scheme)
		b.shot(t, scheme, true)
		b.accessible(t)
		b.contrasts(t)
	}
	b.prefer(t, "light")
	b.openPool(t, "many")
	b.await(t, `document.querySelectorAll("#pool-many tbody tr").length === 50`)
	b.expect(t, "how many there are", `document.querySelector("#pool-many .range").innerText === "1–50 of 1,000"`)
	b.eval(t, `const search = document.querySelector("#pool-many input"); search.value = "b77";
		search.dispatchEvent(new Event("input"))`)
	b.expect(t, "those that are found", `document.querySelector("#pool-many .range").innerText === "11 backends"`)
	b.eval(t, `const again = document.querySelector("#pool-many input"); again.value = "";
		again.dispatchEvent(new Event("input")); document.querySelector("#pool-many").scrollIntoView()`)
	b.shot(t, "thousand", false)
	for _, view := range []string{"sessions", "clients", "events", "configuration"} {
		b.eval(t, `location.hash = "#`+view+`"`)
		b.await(t, `document.querySelector("nav [aria-current]").hash === "#`+view+`"`)
		b.expect(t, view+" not wider than the page", narrow)
		if view == "events" {
			w.Ask(t, "PATCH", "/v1/pools/web/backends/web-1", map[string]any{"weight": 3}, nil)
			b.await(t, `document.querySelector(".events").innerText.includes("web-1 of web: weight changed from 2 to 3")`)
		}
		b.shot(t, view, false)
		b.accessible(t)
		b.contrasts(t)
	}
	b.silent(t)
}

// pageKeyboard drains a backend and makes it ready again by keys alone, and looks at what they do to the backend.
func pageKeyboard(t *testing.T, browser *chromium, w *pageWorld) {
	client := w.Dial(t, "keys")
	b := browser.open(t, w.page, 1280, 900)
	b.await(t, cell("k1", "sessions")+` === "1" || `+cell("k2", "sessions")+` === "1"`)
	name := "k1"
	if eval[string](t, b, cell("k2", "sessions")) == "1" {
		name = "k2"
	}
	b.tabTo(t, name)
	b.press(t, kb.Enter)
	b.await(t, `document.querySelector("dialog.panel h2").innerText === "`+name+`"`)
	b.shot(t, "panel", false)
	b.accessible(t)
	b.tabTo(t, "Drain…")
	b.press(t, kb.Enter)
	b.await(t, `document.querySelector("dialog.confirm").innerText.includes("Its session may go on until it ends")`)
	b.expect(t, "what is left",
		`document.querySelector("dialog.confirm").innerText.includes("1 other backend of the pool stays eligible")`)
	b.shot(t, "confirm", false)
	b.accessible(t)
	b.press(t, kb.Escape)
	b.expect(t, "Escape closes the question only", `document.querySelectorAll("dialog").length === 1`)
	b.expect(t, "the focus is where it was", `document.activeElement.innerText === "Drain…"`)
	if mode := w.mode(t, "keys", name); mode != "ready" {
		t.Errorf("after Escape the mode is %s", mode)
	}

	b.press(t, kb.Enter)
	b.press(t, kb.ArrowDown) // after 30 seconds
	b.press(t, kb.ArrowDown) // after 5 minutes
	b.await(t, `document.querySelector("dialog.confirm").innerText.includes("it ends, or is cut after 5m0s")`)
	b.tabTo(t, "Drain "+name)
	b.press(t, kb.Enter)
	b.await(t, `document.querySelectorAll("dialog").length === 1`)
	b.await(t, `document.querySelector(".drain").innerText.startsWith("Draining: 1 of 1 session left, ended in 4m")`)
	b.await(t, `document.querySelector("#announcer").innerText.includes("`+name+`")`)
	if mode := w.mode(t, "keys", name); mode != "drain" {
		t.Errorf("the mode is %s", mode)
	}
	b.shot(t, "draining", false)
	b.contrasts(t)
	check(t, client.Close())
	b.await(t, `document.querySelector(".drain").innerText === ""`)

	b.tabTo(t, "Ready…")
	b.press(t, kb.Enter)
	b.tabTo(t, "Make ready: "+name)
	b.press(t, kb.Enter)
	b.await(t, `document.querySelector("dialog.panel .states").innerText.includes("Ready")`)
	b.tabTo(t, "Weight…")
	b.press(t, kb.Enter)
	b.press(t, kb.End+kb.Backspace+"300")
	b.await(t, `document.querySelector("dialog.confirm").innerText.includes("whole number from 0 to 256")`)
	b.press(t, kb.Backspace+kb.Backspace)
	b.await(t, `document.querySelector("dialog.confirm").innerText.includes("from about 50 % to about 75 %")`)
	b.press(t, kb.Enter)
	b.await(t, `document.querySelectorAll("dialog").length === 1`)
	b.await(t, `document.querySelector(".facts-list dd").innerText === "3"`)
	b.press(t, kb.Escape)
	b.await(t, `document.querySelectorAll("dialog").length === 0`)
	b.expect(t, "the focus is on the row again", `document.activeElement.innerText === "`+name+`"`)
	b.silent(t)
}

// pageNames shows names and check results that would do something if they were taken for markup, and a very long name.
// They are shown as they are, and a change reaches the backend of that name.
func pageNames(t *testing.T, browser *chromium, w *pageWorld) {
	names := []string{
		hostile, `"><svg onload=alert(1)>`, `__proto__`, `a/b?c#d%41 é`, `..;/..`, strings.Repeat("long-", 40),
	}
	changed := make(chan string, len(names))
	b := browser.open(t, w.renaming(t, names, changed), 1280, 900)
	b.openPool(t, "names")
	b.await(t, fmt.Sprintf(`document.querySelectorAll("#pool-names .link").length === %d`, len(names)))
	b.await(t, `document.querySelector("#pool-names .clipped").textContent.includes('<img src=x')`)
	b.expect(t, "nothing wider than the page", narrow)
	b.eval(t, `document.querySelector("#pool-names").scrollIntoView()`)
	b.shot(t, "names", false)
	for _, name := range names {
		b.eval(t, fmt.Sprintf(`
			[...document.querySelectorAll("#pool-names .link")].find((l) => l.textContent === %q).click();
			[...document.querySelectorAll(".panel button")].find((l) => l.innerText === "Maintenance…").click();
			document.querySelector(".confirm .danger").click()`, name))
		if path := harness.Receive(t, "a change", changed); path != "/v1/pools/names/backends/"+name {
			t.Errorf("the change of %q is for %q", name, path)
		}
		b.await(t, `document.querySelectorAll("dialog").length === 1`)
		b.expect(t, "the panel not wider than the screen", `document.querySelector(".panel").scrollWidth <= innerWidth`)
		b.eval(t, `document.querySelector(".panel .close").click()`)
		b.await(t, `document.querySelectorAll("dialog").length === 0`)
	}
	b.expect(t, "no name is markup", `!document.querySelector("main img, main script, [onload], [onerror]")`)
	b.expect(t, "no name has run", `window.hostile === undefined`)
	b.silent(t)
}

// pageAddress opens the page at an address on TCP: first without a token, where nothing may be changed, and then with
// one, which a reload sets while the page is open.
func pageAddress(t *testing.T, browser *chromium, _ *pageWorld) {
	address, token := harness.FreeAddress(t), filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(token, []byte("open-sesame\n"), 0o600))
	w := world{Listen: harness.FreeAddress(t), Backends: []string{harness.FreeAddress(t)}}
	w.Global = []string{fmt.Sprintf("[admin]\naddress = %q", address)}
	balancer := w.start(t)
	b := browser.open(t, "http://"+address+"/", 1000, 800)
	b.await(t, `document.querySelector(".notices")?.innerText.includes("can only be read")`)
	b.await(t, `document.querySelector("#pool-all .link")`)
	b.eval(t, `document.querySelector("#pool-all .link").click()`)
	b.await(t, `document.querySelector(".panel .controls").innerText.includes("can only be read")`)
	b.expect(t, "no control works", `[...document.querySelectorAll(".controls button")].every((c) => c.disabled)`)
	status, err := chromedp.Run(b.ctx, chromedp.Evaluate[int](
		`fetch("/v1/pools/all/backends/b1/drain", { method: "POST" }).then((a) => a.status)`, chromedp.EvalAwaitPromise))
	if check(t, err); status != http.StatusForbidden {
		t.Errorf("a drain is answered with %v", status)
	}
	b.press(t, kb.Escape)

	w.Global = []string{fmt.Sprintf("[admin]\naddress = %q\ntoken_file = %q", address, token)}
	balancer.Configure(t, w.config(t))
	balancer.Signal(t, syscall.SIGHUP)
	b.await(t, `document.activeElement.id === "token-input"`)
	b.shot(t, "token", false)
	b.accessible(t)
	b.press(t, "wrong"+kb.Enter)
	b.await(t, `document.querySelector(".confirm .failure").innerText === "The daemon does not accept this token."`)
	b.press(t, kb.Escape)
	b.await(t, `document.querySelector("#problem").innerText.includes("A token is needed")`)
	b.tabTo(t, "Enter the token")
	b.press(t, kb.Enter)
	b.await(t, `document.activeElement.id === "token-input"`)
	b.press(t, "open-sesame"+kb.Enter)
	b.await(t, `document.querySelector("#problem").hidden`)
	b.await(t, `!document.querySelector(".notices").innerText.includes("can only be read")`)
	b.do(t, chromedp.Reload())
	b.await(t, `document.querySelector("#pool-all")`) // the tab has kept it
	b.eval(t, `document.querySelector("#token").click()`)
	b.await(t, `document.querySelector("#problem").innerText.includes("A token is needed")`)
	b.expect(t, "it is forgotten", `sessionStorage.length === 0`)
	b.expect(t, "nothing is shown any more", `[...document.querySelectorAll("#view, #facts")].every((e) => e.hidden)`)
	b.press(t, "open-sesame"+kb.Enter)
	b.await(t, `document.querySelector("#problem").hidden`)

	balancer.Signal(t, syscall.SIGTERM)
	if code := balancer.Wait(t); code != 0 {
		t.Errorf("the balancer ended with exit code %d", code)
	}
	b.await(t, `document.querySelector("#problem").innerText.includes("The daemon does not answer.")`)
	b.expect(t, "the last answer is still there", `document.querySelector("#pool-all").checkVisibility()`)
	b.silent(t)
}

// pagePolicy does what the policy forbids, one thing after the other. It also shows that complaints are found.
func pagePolicy(t *testing.T, browser *chromium, w *pageWorld) {
	elsewhere := harness.Serve(t, harness.Echo).Address()
	add := `const n = document.createElement(%q); %s; document.body.append(n)`
	b := browser.open(t, w.page, 400, 300)
	for _, forbidden := range []struct{ what, act string }{
		{"markup", `document.body.innerHTML = "<b>x</b>"`},
		{"a style", `document.body.setAttribute("style", "color: red")`},
		{"a script", fmt.Sprintf(add, "script", `n.append("window.ran = 1")`)},
		{"an image of elsewhere", fmt.Sprintf(add, "img", `n.src = "http://`+elsewhere+`/x"`)},
		{"an image of its own", fmt.Sprintf(add, "img", `n.src = "data:image/gif;base64,R0lGOD"`)},
		{"a request to elsewhere", `fetch("http://` + elsewhere + `/x").catch(() => {})`},
		{"a frame", fmt.Sprintf(add, "iframe", `n.src = "/"`)},
	} {
		before := len(b.complained())
		b.eval(t, `try { `+forbidden.act+` } catch {}`)
		harness.Eventually(t, "the browser complains about "+forbidden.what, func() error {
			if len(b.complained()) == before {
				return errors.New("it does not")
			}
			return nil
		})
	}
	b.expect(t, "nothing has run", `window.ran === undefined && !document.querySelector("body > b")`)
}

// pageNumbers compares how numbers are written and rates are computed with what they should be.
func pageNumbers(t *testing.T, browser *chromium, w *pageWorld) {
	b := browser.open(t, w.page, 400, 300)
	for _, c := range []struct{ expression, want string }{
		{`[0, 1023, 1024, 1048524, 1048525, 5e12].map(f.bytes)`, "0 B,1,023 B,1.0 KiB,1023.9 KiB,1.0 MiB,4.5 TiB"},
		{`[0, 0.0002, 0.25, 9.99, 59.9, 3599, 3600, 90061].map(f.duration)`, "0s,200µs,250ms,9.9s,59s,59m59s,1h0m,1d1h"},
		{`[null, 0, 0.01, 0.06, 9.94, 9.96, 12345.6].map(f.rate)`, "–,0,<0.1,0.1,9.9,10,12,346"},
		{`["b10", "b2", "a"].sort(f.natural)`, "a,b2,b10"},
		{`[f.counted(1, "session"), f.counted(1000, "session"), f.words("no_way")]`,
			"1 session,1,000 sessions,no way"},
		// A counter that falls begins anew. After a pause nothing is known, and the history is empty.
		{`((r) => [[0, 0], [50, 1000], [50, 3000], [10, 4000], [30, 4500], [90, 90000], [95, 91000]].map(([total, at]) => {
			r.count(total, at); return r.last + "/" + r.values.length }))(new s.Rate())`,
			"null/0,50/1,0/2,0/3,40/4,null/0,5/1"},
	} {
		got, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](
			`Promise.all([import("/page/format.js"), import("/page/series.js")]).then(([f, s]) => String(`+c.expression+`))`,
			chromedp.EvalAwaitPromise))
		if check(t, err); got != c.want {
			t.Errorf("%s is %q, expected %q", c.expression, got, c.want)
		}
	}
}

// pageHidden hides the tab: the page then asks nothing but follows the events, and asks at once when the tab is back.
func pageHidden(t *testing.T, browser *chromium, w *pageWorld) {
	weigh := func(weight int) {
		w.Ask(t, "PATCH", "/v1/pools/redis/backends/replica", map[string]any{"weight": weight}, nil)
	}
	b := browser.open(t, w.page, 1280, 900)
	b.await(t, cell("replica", "weight")+` === "1"`)
	const hide = `Object.defineProperty(document, "hidden", { configurable: true, value: %t });
		document.dispatchEvent(new Event("visibilitychange"))`
	b.eval(t, fmt.Sprintf(hide, true))
	b.await(t, `document.querySelector("#link").innerText === "Paused"`)
	b.eval(t, `location.hash = "#events"`)
	for _, weight := range []int{7, 8} {
		weigh(weight)
		b.await(t, fmt.Sprintf(`document.querySelector(".events").innerText.includes("to %d")`, weight))
	}
	b.eval(t, `location.hash = "#overview"`)
	b.openPool(t, "redis") // and have it on the screen
	b.expect(t, "nothing was asked", cell("replica", "weight")+` === "1"`)
	b.eval(t, fmt.Sprintf(hide, false))
	b.await(t, cell("replica", "weight")+` === "8"`)
	b.silent(t)
}

// pagePhone looks at the page on a phone.
func pagePhone(t *testing.T, browser *chromium, w *pageWorld) {
	b := browser.open(t, w.page, 390, 844)
	b.await(t, cell("web-2", "sessions")+` === "3"`)
	b.expect(t, "nothing wider than the screen", narrow)
	b.shot(t, "phone", false)
	b.eval(t, `document.querySelector("#pool-web").scrollIntoView()`)
	b.shot(t, "phone-pool", false)
	b.accessible(t)
	b.contrasts(t)
	b.prefer(t, "dark")
	b.eval(t, `[...document.querySelectorAll("#pool-web .link")][0].click()`)
	b.await(t, `document.querySelector("dialog.panel .states")`)
	b.expect(t, "the panel not wider than the screen", `document.querySelector(".panel").scrollWidth <= innerWidth`)
	b.shot(t, "phone-panel", false)
	b.silent(t)
}

// pageSessions filters the sessions and ends one.
func pageSessions(t *testing.T, browser *chromium, w *pageWorld) {
	client := w.Dial(t, "ends") // the older one, and so the first in the list
	echo(t, client)
	echo(t, w.Dial(t, "ends"))
	b := browser.open(t, w.page+"#sessions", 1280, 900)
	b.await(t, `document.querySelector("#filter-listener")`)
	b.eval(t, `document.querySelector("#filter-client").value = "nonsense";
		document.querySelector("form.filter").requestSubmit()`)
	b.await(t, `document.querySelector(".failure").innerText.includes("an IP address or a prefix")`)
	b.eval(t, `document.querySelector("#filter-client").value = "";
		document.querySelector("#filter-listener").value = "ends";
		document.querySelector("form.filter").requestSubmit()`)
	b.await(t, `document.querySelector(".count-line").innerText === "2 sessions"`)
	_, port, err := net.SplitHostPort(client.LocalAddr().String())
	check(t, err)
	b.expect(t, "the client", `document.querySelector("tbody tr").innerText.includes(":`+port+`")`)
	b.tabTo(t, "End…")
	b.press(t, kb.Enter)
	b.await(t, `document.querySelector(".confirm").innerText.includes("is reset at once")`)
	b.tabTo(t, "End session")
	b.press(t, kb.Enter)
	b.await(t, `document.querySelector(".count-line").innerText === "1 session"`)
	b.expect(t, "the focus is on the next one", `document.activeElement.innerText === "End…"`)
	expectReset(t, client)
	oneOf(t, []harness.Line{w.WaitSession(t, client.LocalAddr())}, "ended_by_operator")
	b.silent(t)
}
