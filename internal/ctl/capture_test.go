package ctl

import (
	"context"

	"sixfour/internal/capture"
)

func (f *fake) Capture(ctx context.Context, r capture.Request, out capture.Sink) error {
	tap, err := capture.New(r)
	if err != nil {
		return err
	}
	return tap.Stream(ctx, out)
}
