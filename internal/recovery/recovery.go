// Package recovery confines a panic to the work during which it happened.
package recovery

import (
	"fmt"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// panicLog limits log lines about panics of all goroutines: each has a stack trace, and
// anyone can resend a packet that causes a panic.
var panicLog = rate.NewLimiter(rate.Every(10*time.Second), 5)

// Guard calls f, logs a panic in it, and reports whether there was one. The caller must
// then replace state that f may have left half changed. Locks that f takes must be
// released by defer.
func Guard(log *zap.Logger, doing string, f func()) (panicked bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		panicked = true
		if log != nil && panicLog.Allow() {
			log.Error("panic: this is a bug in sixfourd, which discards what it was working on and continues: please report this line",
				zap.String("doing", doing), zap.String("panic", fmt.Sprint(v)), zap.ByteString("stack", debug.Stack()))
		}
	}()
	f()
	return false
}
