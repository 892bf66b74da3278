package main

import (
	"encoding/json"
	"testing"
)

func TestSchemaCommand(t *testing.T) {
	code, stdout, stderr := command(t, "schema")
	var document struct {
		Schema     string         `json:"$schema"`
		Properties map[string]any `json:"properties"`
	}
	if err := json.Unmarshal([]byte(stdout), &document); code != exitDone || stderr != "" || err != nil {
		t.Fatal(code, stderr, err)
	}
	if document.Schema != "http://json-schema.org/draft-04/schema#" || document.Properties["pool"] == nil {
		t.Errorf("%+v", document)
	}
}
