// Copy it to secrets.h, fill it in, and keep that out of version control.
#define WIFI_NAME ""
#define WIFI_PASSWORD ""
#define BROKER_HOST "broker.local"
#define BROKER_PORT 8883
#define BROKER_USER ""
#define BROKER_PASSWORD ""
#define PROJECT "general"
// The authority that has signed the broker's certificate. Without it nothing is encrypted: no more than a trial at home.
#define BROKER_CA "-----BEGIN CERTIFICATE-----\n" \
                  "-----END CERTIFICATE-----\n"
