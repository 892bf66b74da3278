package main

import (
	"crypto/sha1"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// A bom is a CycloneDX 1.5 document, as far as it is used here (https://cyclonedx.org/docs/1.5/json/).
type bom struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     bomMetadata  `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type bomMetadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

// A component is the program, or a module that is linked into it.
type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl,omitempty"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// sbom writes the list of what is linked into the binary. The source is what Go itself wrote into the binary, which
// `go version -m` prints, and not go.mod, which also names what only tests need.
func (r *release) sbom(b built) error {
	info, err := buildinfo.ReadFile(b.program())
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(r.bomOf(b, info), "", "  ")
	if err != nil {
		return err
	}
	out := filepath.Join(r.out, r.name(b)+".cdx.json")
	r.files = append(r.files, out)
	return os.WriteFile(out, append(text, '\n'), 0o644)
}

func (r *release) bomOf(b built, info *debug.BuildInfo) bom {
	program := component{Type: "application", Name: "limeload-l4", Version: r.version}
	program.PURL = "pkg:golang/" + info.Main.Path + "@" + r.version
	program.Ref = program.PURL
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	parts := []component{{
		Type: "library", Name: "std", Version: goVersion,
		Ref: "pkg:golang/std@" + goVersion, PURL: "pkg:golang/std@" + goVersion,
	}}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		// a + of a version stands for a space in a URL
		purl := "pkg:golang/" + module.Path + "@" + strings.ReplaceAll(module.Version, "+", "%2B")
		parts = append(parts, component{
			Type: "library", Name: module.Path, Version: module.Version, Ref: purl, PURL: purl,
		})
	}
	slices.SortFunc(parts[1:], func(a, b component) int { return strings.Compare(a.Name, b.Name) })
	depends := dependency{Ref: program.Ref}
	for _, p := range parts {
		depends.DependsOn = append(depends.DependsOn, p.Ref)
	}
	// The serial number names the document: it is made from what it describes, so that it is the same again.
	sum := sha1.Sum([]byte(r.version + b.arch + strings.Join(depends.DependsOn, " ")))
	sum[6], sum[8] = sum[6]&0x0f|0x50, sum[8]&0x3f|0x80 // RFC 9562, 5.5: version 5, a name's hash
	return bom{
		Format: "CycloneDX", Spec: "1.5", Version: 1,
		Serial:       fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]),
		Metadata:     bomMetadata{Timestamp: r.date.Format(time.RFC3339), Component: program},
		Components:   parts,
		Dependencies: []dependency{depends},
	}
}
