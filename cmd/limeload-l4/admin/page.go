package admin

import (
	"embed"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// pageFiles are the files of the page: HTML, style sheets, JavaScript modules and an icon, as browsers get them. There
// is no build step.
//
//go:embed page
var pageFiles embed.FS

// pagePath is where the page's files are, besides index.html.
const pagePath = "/page/"

// pagePolicy is the Content-Security-Policy of the page. A browser then loads only files of this server, runs no script
// and applies no style within the HTML, sends no form, and makes no markup from a string. So the name of a backend is
// never more than a text, even where the page has a mistake.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// pageMedia returns the media type of a file of the page; "" for other files.
func pageMedia(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return ""
}

// page sends a file of the page. A browser has no token yet when it asks, and the files hold nothing of the daemon: the
// page gets its data from the other routes, with the token.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	if name == "" {
		name = "index.html"
	}
	text, err := fs.ReadFile(pageFiles, "page/"+name)
	media := pageMedia(name)
	if err != nil || media == "" || strings.Contains(name, "/") {
		s.refuse(w, newProblem(problemNotFound, "the page has no file "+clip(name)))
		return
	}
	header := w.Header()
	header.Set("Content-Security-Policy", pagePolicy)
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "no-referrer")
	s.send(w, reply{status: http.StatusOK, media: media, body: text})
}

// opensPage reports whether a browser sends a request because somebody follows a link to the page. That may be a link
// of another site, such as a wiki, which learns nothing from it: it cannot read the answer, and not frame the page.
func (r route) opensPage(q *http.Request) bool {
	return r.page && q.Header.Get("Sec-Fetch-Mode") == "navigate" && q.Header.Get("Sec-Fetch-Dest") == "document"
}
