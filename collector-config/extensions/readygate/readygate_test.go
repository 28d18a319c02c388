package readygate

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// waits answers when it is told to, and says that it was called.
type waits struct {
	called chan struct{}
	told   chan error
}

func (w *waits) handle(context.Context, any) (any, error) {
	close(w.called)
	return "answer", <-w.told
}

func newWaits() *waits {
	return &waits{called: make(chan struct{}), told: make(chan error, 1)}
}

func TestNobodyIsLetInBeforeAndAfter(t *testing.T) {
	g := newGate(time.Hour)
	wrap, err := g.GetHTTPHandler(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	handler, err := wrap(context.Background(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	}))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(wanted int, code codes.Code) {
		t.Helper()
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/", nil))
		if recorder.Code != wanted || (wanted != http.StatusOK && recorder.Header().Get("Retry-After") != "1") {
			t.Error(recorder.Code, recorder.Header())
		}
		next := newWaits()
		next.told <- nil
		if _, err := g.call(context.Background(), nil, nil, next.handle); status.Code(err) != code {
			t.Error(err)
		}
	}
	ask(http.StatusServiceUnavailable, codes.Unavailable)
	_ = g.Ready()
	ask(http.StatusOK, codes.OK)
	_ = g.NotReady()
	ask(http.StatusServiceUnavailable, codes.Unavailable)
}

func TestACallUnderWayHasItsTimeAndNoMore(t *testing.T) {
	failed := errors.New("failed")
	for _, leave := range []time.Duration{time.Hour, time.Millisecond} {
		g, next := newGate(leave), newWaits()
		_ = g.Ready()
		answered := make(chan error, 1)
		go func() {
			_, err := g.call(context.Background(), nil, nil, next.handle)
			answered <- err
		}()
		<-next.called
		_ = g.NotReady()
		// As the Collector does, should one pipeline's end fail.
		_ = g.NotReady()
		if leave == time.Hour {
			next.told <- failed
			if err := <-answered; !errors.Is(err, failed) {
				t.Error(err)
			}
			continue
		}
		// Never told to.
		if err := <-answered; status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
	}
}
