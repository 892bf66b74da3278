package test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/limeload/limeload-l4/test/harness"
)

// A chromium is a running browser without a window. Its methods may be called from any goroutine, except those that
// take a testing.TB.
type chromium struct{ ctx context.Context }

// startChromium starts a browser with a profile of its own, which asks nothing of the network but what its tabs ask. It
// ends with the test.
func startChromium(t testing.TB) *chromium {
	t.Helper()
	profile, err := os.MkdirTemp("", "lbchromium")
	if err != nil {
		t.Fatal(err)
	}
	flags := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(harness.Tool(t, "chromium")), chromedp.UserDataDir(profile), chromedp.Flag("headless", "new"),
	}
	for _, name := range []string{
		"no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "no-default-browser-check", "disable-extensions",
		"disable-background-networking", "disable-component-update", "disable-sync", "disable-breakpad",
		"disable-default-apps", "disable-dev-shm-usage", "disable-background-timer-throttling",
		"disable-backgrounding-occluded-windows", "disable-renderer-backgrounding", "hide-scrollbars", "mute-audio",
	} {
		flags = append(flags, chromedp.Flag(name, true))
	}
	allocator, free := chromedp.NewExecAllocator(context.Background(), flags...)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // ends the browser in order, and waits
		cancel()
		free() // waits for the process
		for range 100 {
			if os.RemoveAll(profile) == nil { // its children may still write
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return &chromium{ctx}
}

// A tab is a tab of a browser with no cookies and no storage of another tab. It keeps what the browser complains about.
type tab struct {
	ctx context.Context

	// mu guards the fields below
	mu         sync.Mutex
	complaints []string
}

// open opens a tab of width x height pixels at an address, and closes it with the test.
func (c *chromium) open(t testing.TB, address string, width, height int64) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	b := &tab{ctx: ctx}
	b.do(t, chromedp.EmulateViewport(width, height))
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatal(err)
	}
	b.do(t, chromedp.Navigate(address))
	return b
}

// note keeps errors of scripts, of the console, and violations of the policy. A request that is answered with an error
// is none: the tests that cause such answers look at what the page makes of them.
func (b *tab) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, "exception: "+e.ExceptionDetails.Text+" "+describe(e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			texts := []string{"console:"}
			for _, argument := range e.Args {
				texts = append(texts, describe(argument))
			}
			b.complaints = append(b.complaints, strings.Join(texts, " "))
		}
	case *log.EventEntryAdded:
		if e.Entry.Source != log.EntrySourceNetwork {
			b.complaints = append(b.complaints, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		}
	}
}

func describe(o *runtime.RemoteObject) string {
	if o == nil {
		return ""
	}
	return o.Description + string(o.Value)
}

// complained returns what the browser has complained about: exceptions, errors and warnings in the console, and
// violations of the page's Content-Security-Policy.
func (b *tab) complained() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.complaints...)
}

// do runs actions, which must succeed.
func (b *tab) do(t testing.TB, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// eval returns the value of a JavaScript expression in the tab.
func eval[T any](t testing.TB, b *tab, expression string) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// await waits until a JavaScript expression is true.
func (b *tab) await(t testing.TB, expression string) {
	t.Helper()
	harness.Eventually(t, expression, func() error {
		is, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err == nil && !is {
			text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](
				"(document.querySelector('dialog:last-of-type') || document.body).innerText.slice(0, 3000)"))
			err = fmt.Errorf("the page shows %s", text)
		}
		return err
	})
}
