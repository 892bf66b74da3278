package admin

import (
	"errors"
	"testing"
)

// TestDecodeObject: an error has the field, its value and what is allowed.
func TestDecodeObject(t *testing.T) {
	for _, tt := range []struct{ body, field, detail string }{
		{`{"weight":"1"}`, "weight", "weight: found string; needs a whole number"},
		{`{"weight":1.5}`, "weight", "weight: found number 1.5; needs a whole number"},
		{`{"tier":1e400}`, "tier", "tier: found number 1e400; needs a whole number"},
		{`{"name":7}`, "name", "name: found number; needs a text"},
		{`{"zone":{"a":1}}`, "zone", "zone: found object; needs a text"},
		{`{"other \n":1}`, "other \n", "other \n: there is no such field"},
		{`{"Weight":1}`, "Weight", "Weight: there is no such field"},
		{`{"addreſſ":"a"}`, "addreſſ", "addreſſ: there is no such field"}, // encoding/json takes this for address
		{`{"tier":1,"tier":1}`, "tier", "tier: it is there twice"},
		{`{"weight":null}`, "weight", "weight: found null; needs a value, or to be left out"},
		{`null`, "", "the body needs to be a JSON object"},
		{`[1]`, "", "the body needs to be a JSON object"},
		{`{} 1`, "", "the body needs to be one JSON object, and there is something after it"},
		{`{"weight":NaN}`, "", "the body is no JSON: byte 11: invalid character 'N' looking for beginning of value"},
		{`{"weight":1`, "", "the body is no JSON: unexpected EOF"},
		{` `, "", "the body is no JSON: unexpected EOF"},
	} {
		var into NewBackend
		var p *Problem
		if err := decodeObject([]byte(tt.body), &into); !errors.As(err, &p) {
			t.Errorf("%s is decoded: %v", tt.body, err)
		} else if p.Type != problemBadRequest || p.Field != tt.field || p.Detail != tt.detail {
			t.Errorf("%s: %s, field %q, %q; want field %q, %q", tt.body, p.Type, p.Field, p.Detail, tt.field, tt.detail)
		}
	}
}
