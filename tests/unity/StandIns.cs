// What examples/unity uses of Unity and of MQTTnet 4, as declarations: enough to compile against, and nothing that runs.
using System;
using System.Threading;
using System.Threading.Tasks;

namespace UnityEngine
{
    public class MonoBehaviour { }

    [AttributeUsage(AttributeTargets.Field)]
    public class SerializeField : Attribute { }

    public static class Debug
    {
        public static void LogWarning(object message) { }
    }

    public static class JsonUtility
    {
        public static string ToJson(object value) { return null; }
        public static T FromJson<T>(string json) { return default(T); }
    }
}

namespace UnityEngine.UI
{
    public class Text
    {
        public string text { get; set; }
        public bool supportRichText { get; set; }
    }
}

namespace MQTTnet
{
    using MQTTnet.Client;
    using MQTTnet.Protocol;

    public class MqttFactory
    {
        public IMqttClient CreateMqttClient() { return null; }
    }

    public class MqttApplicationMessage
    {
        public ArraySegment<byte> PayloadSegment { get; set; }
    }

    public class MqttApplicationMessageBuilder
    {
        public MqttApplicationMessageBuilder WithTopic(string topic) { return this; }
        public MqttApplicationMessageBuilder WithPayload(string payload) { return this; }
        public MqttApplicationMessageBuilder WithQualityOfServiceLevel(MqttQualityOfServiceLevel level) { return this; }
        public MqttApplicationMessage Build() { return null; }
    }

    public class MqttTopicFilterBuilder
    {
        public MqttTopicFilterBuilder WithTopic(string topic) { return this; }
        public MqttTopicFilterBuilder WithAtLeastOnceQoS() { return this; }
        public Packets.MqttTopicFilter Build() { return null; }
    }
}

namespace MQTTnet.Packets
{
    public class MqttTopicFilter { }
}

namespace MQTTnet.Protocol
{
    public enum MqttQualityOfServiceLevel { AtMostOnce, AtLeastOnce, ExactlyOnce }
}

namespace MQTTnet.Formatter
{
    public enum MqttProtocolVersion { Unknown = 0, V310 = 3, V311 = 4, V500 = 5 }
}

namespace MQTTnet.Client
{
    using MQTTnet.Formatter;
    using MQTTnet.Packets;

    public class MqttClientOptions { }
    public class MqttClientConnectResult { }
    public class MqttClientSubscribeResult { }
    public class MqttClientPublishResult { }

    public class MqttApplicationMessageReceivedEventArgs : EventArgs
    {
        public MqttApplicationMessage ApplicationMessage { get { return null; } }
    }

    public class MqttClientTlsOptionsBuilder
    {
        public MqttClientTlsOptionsBuilder UseTls(bool useTls = true) { return this; }
    }

    public class MqttClientOptionsBuilder
    {
        public MqttClientOptionsBuilder WithClientId(string id) { return this; }
        public MqttClientOptionsBuilder WithTcpServer(string host, int? port = null) { return this; }
        public MqttClientOptionsBuilder WithTlsOptions(Action<MqttClientTlsOptionsBuilder> configure) { return this; }
        public MqttClientOptionsBuilder WithCredentials(string user, string password) { return this; }
        public MqttClientOptionsBuilder WithKeepAlivePeriod(TimeSpan period) { return this; }
        public MqttClientOptionsBuilder WithProtocolVersion(MqttProtocolVersion version) { return this; }
        public MqttClientOptions Build() { return null; }
    }

    public interface IMqttClient : IDisposable
    {
        event Func<MqttApplicationMessageReceivedEventArgs, Task> ApplicationMessageReceivedAsync;
        bool IsConnected { get; }
        Task<MqttClientConnectResult> ConnectAsync(MqttClientOptions options, CancellationToken token = default(CancellationToken));
        Task<MqttClientPublishResult> PublishAsync(MqttApplicationMessage message, CancellationToken token = default(CancellationToken));
    }

    public static class MqttClientExtensions
    {
        public static Task<MqttClientSubscribeResult> SubscribeAsync(
            this IMqttClient client, MqttTopicFilter filter, CancellationToken token = default(CancellationToken)) { return null; }
    }
}
