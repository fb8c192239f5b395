package report

import (
	"errors"
	"strings"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/events"
)

// The reason of a failed reload is stored up to a limit: a file may have thousands of errors.
func TestReloads(t *testing.T) {
	r := Reloads{Events: new(events.Log)}
	r.Failed(errors.New(strings.Repeat("x", 1<<20)))
	why, following := r.Status().Error, r.Events.Follow(t.Context())
	if text := (<-following).Text; len(why) > 2*maxWhy || len(text) > 2*maxWhy || !strings.HasPrefix(why, "xxx") {
		t.Errorf("%d and %d bytes", len(why), len(text))
	}
	r.Succeeded(new(api.Plan))
	if s := r.Status(); s.Error != "" || s.Failed != 1 || s.Succeeded != 1 || s.Last.IsZero() {
		t.Errorf("%+v", s)
	}
	if e := <-following; e.Kind != api.EventReload {
		t.Errorf("%+v", e)
	}
}
