// A MonoBehaviour that asks a language model over MQTT 5, by MQTTnet 4, and shows the answer as it grows.
using System;
using System.Collections.Concurrent;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using MQTTnet;
using MQTTnet.Client;
using MQTTnet.Formatter;
using MQTTnet.Protocol;
using UnityEngine;
using UnityEngine.UI;

public class Inferbus : MonoBehaviour
{
    [SerializeField] string host = "broker.local";
    [SerializeField] int port = 8883;
    [SerializeField] string project = "general";
    [SerializeField] Text answer;

    const int GiveUpMs = 60000;

    // MQTTnet calls from threads of its own, and Unity's objects are for the main thread alone.
    readonly ConcurrentQueue<Action> onMainThread = new ConcurrentQueue<Action>();
    readonly CancellationTokenSource destroyed = new CancellationTokenSource();
    readonly string clientId = "unity-" + Guid.NewGuid().ToString("N");
    readonly System.Random random = new System.Random();
    IMqttClient mqtt;
    Request request; // the one under way
    int attempt, run;
    bool begun;
    DateTime giveUp;

    [Serializable]
    class Request
    {
        public string message, requestId, clientId, sessionId;
        public bool stream = true;
        public int deadlineMs = GiveUpMs;
    }

    [Serializable]
    class Reply
    {
        public string type, requestId, text, code, message;
        public bool retryable;
        public int retryAfterMs; // JsonUtility reads null as 0: nobody knows
        public string worker; // where workers share their requests
        public int run; // how often another worker has begun it anew
    }

    async void Start()
    {
        answer.supportRichText = false; // what a model writes is text, and no markup
        mqtt = new MqttFactory().CreateMqttClient();
        mqtt.ApplicationMessageReceivedAsync += message =>
        {
            var payload = message.ApplicationMessage.PayloadSegment;
            var json = Encoding.UTF8.GetString(payload.Array, payload.Offset, payload.Count);
            onMainThread.Enqueue(() => Received(json));
            return Task.CompletedTask;
        };
        while (!destroyed.IsCancellationRequested)
        {
            try
            {
                if (!mqtt.IsConnected) await Connect();
            }
            catch (Exception error) when (!destroyed.IsCancellationRequested)
            {
                Debug.LogWarning("no broker: " + error.Message);
            }
            // Not every player at the same moment when the broker comes back.
            await Task.Delay(2000 + random.Next(2000));
        }
    }

    async Task Connect()
    {
        // The player's own login, from the environment or a keychain: never from the scene, which ships with the game.
        var user = Environment.GetEnvironmentVariable("INFERBUS_USERNAME");
        var password = Environment.GetEnvironmentVariable("INFERBUS_PASSWORD");
        var options = new MqttClientOptionsBuilder()
            .WithClientId(clientId)
            .WithTcpServer(host, port)
            .WithTlsOptions(tls => tls.UseTls(port != 1883))
            .WithCredentials(user, password)
            .WithKeepAlivePeriod(TimeSpan.FromSeconds(30))
            .WithProtocolVersion(MqttProtocolVersion.V500)
            .Build();
        await mqtt.ConnectAsync(options, destroyed.Token);
        var replies = new MqttTopicFilterBuilder().WithTopic(Topic("assistant_response")).WithAtLeastOnceQoS().Build();
        await mqtt.SubscribeAsync(replies, destroyed.Token);
        // What the worker knows already it does not run again: it answers, or is at it.
        if (request != null) Publish(Topic("user_input"), JsonUtility.ToJson(request));
    }

    public void Ask(string message)
    {
        if (request != null) return;
        request = new Request
        {
            message = message, requestId = Guid.NewGuid().ToString("N"), clientId = clientId, sessionId = clientId,
        };
        attempt = run = 0;
        begun = false;
        giveUp = DateTime.UtcNow.AddMilliseconds(GiveUpMs);
        Publish(Topic("user_input"), JsonUtility.ToJson(request));
    }

    public void Cancel()
    {
        if (request != null) Publish(Topic("cancel"), "{\"requestId\": \"" + request.requestId + "\"}");
    }

    void Update()
    {
        Action next;
        while (onMainThread.TryDequeue(out next)) next();
        if (request != null && DateTime.UtcNow > giveUp) End("Nobody has answered.");
    }

    void OnDestroy()
    {
        destroyed.Cancel();
        if (mqtt != null) mqtt.Dispose();
    }

    void Received(string json)
    {
        Reply reply;
        try
        {
            reply = JsonUtility.FromJson<Reply>(json);
        }
        catch (ArgumentException)
        {
            return; // no reply of a worker's
        }
        if (request == null || reply == null || reply.requestId != request.requestId) return;
        if (reply.run < run) return; // another worker has begun it anew since
        if (reply.run > run) answer.text = "";
        begun = begun && reply.run == run;
        run = reply.run;
        switch (reply.type)
        {
            case "accepted": // it begins, or begins anew; where workers share requests it may come after the first words
                if (string.IsNullOrEmpty(reply.worker) || !begun) answer.text = "";
                break;
            case "delta":
                answer.text += reply.text;
                begun = true;
                break;
            case "done":
                End(reply.text); // the whole of it, whatever was lost on the way
                break;
            case "error":
                Refused(reply);
                break;
        }
    }

    async void Refused(Reply reply)
    {
        var refused = request;
        run = 0;
        begun = false;
        var wait = reply.retryAfterMs > 0 ? reply.retryAfterMs : 500 << Math.Min(attempt++, 5);
        wait += random.Next(250);
        if (!reply.retryable || DateTime.UtcNow.AddMilliseconds(wait) >= giveUp)
        {
            End(reply.message);
            return;
        }
        await Task.Delay(wait);
        if (request == refused) Publish(Topic("user_input"), JsonUtility.ToJson(request));
    }

    void End(string text)
    {
        answer.text = text;
        request = null;
    }

    async void Publish(string topic, string json)
    {
        var message = new MqttApplicationMessageBuilder()
            .WithTopic(topic)
            .WithPayload(json)
            .WithQualityOfServiceLevel(MqttQualityOfServiceLevel.AtLeastOnce)
            .Build();
        try
        {
            await mqtt.PublishAsync(message, destroyed.Token);
        }
        catch (Exception error) when (!destroyed.IsCancellationRequested)
        {
            Debug.LogWarning("not sent: " + error.Message); // it goes out once there is a connection again
        }
    }

    string Topic(string kind)
    {
        return project + "/" + kind + "/" + clientId;
    }
}
