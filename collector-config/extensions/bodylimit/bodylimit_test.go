package bodylimit

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const limit = 10

// readAll does with a body what the otlp receiver does.
func readAll(w http.ResponseWriter, r *http.Request) {
	code := http.StatusOK
	if _, err := io.ReadAll(r.Body); err != nil || r.URL.Path == "/undecodable" {
		code = http.StatusBadRequest
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.WriteHeader(code)
	_, _ = w.Write([]byte("the receiver's"))
}

// post returns the answer, and how much of the body is left unread.
func post(t *testing.T, path, contentType, body string) (*http.Response, int) {
	t.Helper()
	factory := NewFactory()
	config := factory.CreateDefaultConfig().(*Config)
	if config.Validate() == nil {
		t.Error("a limit of 0 is valid")
	}
	config.Bytes = limit
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	settings := extension.Settings{ID: component.NewID(factory.Type())}
	made, err := factory.Create(context.Background(), settings, config)
	if err != nil {
		t.Fatal(err)
	}
	wrap, err := made.(*limiter).GetHTTPHandler(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	handler, err := wrap(context.Background(), http.HandlerFunc(readAll))
	if err != nil {
		t.Fatal(err)
	}
	sent := strings.NewReader(body)
	request := httptest.NewRequest(http.MethodPost, path, io.NopCloser(sent))
	request.Header.Set("Content-Type", contentType)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder.Result(), sent.Len()
}

func TestOverTheLimitIs413WithAStatusInTheRequestsMediaType(t *testing.T) {
	decoders := map[string]func([]byte, proto.Message) error{
		"application/x-protobuf":          proto.Unmarshal,
		"application/json; charset=utf-8": protojson.Unmarshal,
	}
	for contentType, decode := range decoders {
		for _, size := range []int{limit + 1, 1_000_000} {
			response, left := post(t, "/v1/logs", contentType, strings.Repeat("x", size))
			body, _ := io.ReadAll(response.Body)
			var found status.Status
			if err := decode(body, &found); err != nil {
				t.Fatalf("%s: %v: %q", contentType, err, body)
			}
			if response.StatusCode != http.StatusRequestEntityTooLarge || found.Code != int32(codes.ResourceExhausted) {
				t.Errorf("%s: %d, %v", contentType, response.StatusCode, &found)
			}
			if !strings.Contains(found.Message, "more than 10 bytes") {
				t.Errorf("no reason: %q", found.Message)
			}
			if left != 0 {
				t.Errorf("%d bytes were not read: the sender would find the connection closed", left)
			}
		}
	}
}

func TestAllElsePasses(t *testing.T) {
	for path, code := range map[string]int{"/v1/logs": http.StatusOK, "/undecodable": http.StatusBadRequest} {
		for _, size := range []int{0, limit} {
			response, _ := post(t, path, "application/json", strings.Repeat("x", size))
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != code || string(body) != "the receiver's" {
				t.Errorf("%s, %d bytes: %d %q", path, size, response.StatusCode, body)
			}
		}
	}
}
