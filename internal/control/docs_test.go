package control_test

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/control"
)

// The page has each route, and no others.
func TestDocsRoutes(t *testing.T) {
	page, err := os.ReadFile("../../docs/control.md")
	must(t, err)
	var told []string
	for _, m := range regexp.MustCompile("(?m)^### `([A-Z]+ /[a-z0-9/]+)`$").FindAllSubmatch(page, -1) {
		told = append(told, string(m[1]))
	}
	have := control.Routes()
	slices.Sort(told)
	slices.Sort(have)
	if !slices.Equal(told, have) {
		t.Errorf("the page has %v, the server %v", told, have)
	}
}

// The page names each field of each answer, and its examples are JSON.
func TestDocsFields(t *testing.T) {
	b, err := os.ReadFile("../../docs/control.md")
	must(t, err)
	page := string(b)
	for _, m := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(page, -1) {
		if !json.Valid([]byte(m[1])) {
			t.Errorf("not JSON: %s", m[1])
		}
	}
	for _, v := range answers {
		for _, name := range fields(reflect.TypeOf(v)) {
			if !strings.Contains(page, "`"+name+"`") && !strings.Contains(page, `"`+name+`"`) {
				t.Errorf("%T: the page has no %s", v, name)
			}
		}
	}
}

// answers are the values that streams and routes answer with.
var answers = []any{api.Version{}, api.Status{}, api.Event{}, api.Plan{}, api.PingReply{}, api.MTUProbe{}, api.MTUResult{}, api.BrokerAccount{}, api.BrokerPassword{}, api.BrokerRequest{}}

// fields returns the JSON names of a type's fields, including nested ones.
func fields(t reflect.Type) (names []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return fields(t.Elem())
	case reflect.Struct:
	default:
		return nil
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" {
			names = append(names, name)
		}
		if f.IsExported() && f.Type.PkgPath() != "time" {
			names = append(names, fields(f.Type)...)
		}
	}
	return names
}
