package door

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"time"

	"go.uber.org/zap"
)

const lookAgain = time.Hour

// watch says when the certificate in a file has expired; without a file nothing.
type watch struct {
	log  *zap.Logger
	file string
	done chan struct{}
}

func (w *watch) start() {
	if w.file == "" {
		return
	}
	w.done = make(chan struct{})
	go func(done <-chan struct{}) {
		ticker := time.NewTicker(lookAgain)
		defer ticker.Stop()
		for {
			w.look(time.Now())
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	}(w.done)
}

func (w *watch) stop() {
	if w.done != nil {
		close(w.done)
		w.done = nil
	}
}

// look leaves a file that holds no certificate to the receiver, which says so.
func (w *watch) look(now time.Time) {
	content, err := os.ReadFile(w.file)
	if err != nil {
		return
	}
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		// The first is the one that is shown; those after it are of its issuers.
		shown, err := x509.ParseCertificate(block.Bytes)
		if err == nil && now.After(shown.NotAfter) {
			w.log.Error("The certificate that senders are shown has expired: they send nothing until it is renewed.",
				zap.String("file", w.file), zap.Time("expired", shown.NotAfter))
		}
		return
	}
}
