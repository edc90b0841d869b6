/** The services behind the gateway, and whether they are ready. */
import { connect } from "@tutelage/platform/grpc";
import { healthProbe } from "@tutelage/platform/health";
import { CampaignsServiceDefinition } from "@tutelage/proto/campaigns/v1/campaigns";
import { WebhooksServiceDefinition } from "@tutelage/proto/campaigns/v1/webhooks";
import { DatasetsServiceDefinition } from "@tutelage/proto/datasets/v1/datasets";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import { TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import { TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";

export type BackendName = "datasets" | "training" | "evaluation" | "teacher" | "campaigns";

export type Backends = ReturnType<typeof connectBackends>;

export function connectBackends(addresses: Record<BackendName, string> & { student?: string | undefined }) {
  const clients = {
    datasets: connect(DatasetsServiceDefinition, addresses.datasets),
    training: connect(TrainingServiceDefinition, addresses.training),
    evaluation: connect(EvaluationServiceDefinition, addresses.evaluation),
    teacher: connect(TeacherServiceDefinition, addresses.teacher),
    campaigns: connect(CampaignsServiceDefinition, addresses.campaigns),
    webhooks: connect(WebhooksServiceDefinition, addresses.campaigns),
  };
  const probes = Object.entries(addresses).flatMap(([name, address]) =>
    address === undefined ? [] : [{ name, probe: healthProbe(address) }],
  );
  return {
    ...clients,
    /** One entry a service that does not answer or does not serve. */
    notReady: async (): Promise<{ name: string; why: string }[]> => {
      const answers = await Promise.all(
        probes.map(async ({ name, probe }) => {
          const health = await probe.check();
          if (health === "serving") return undefined;
          if (health === "no_answer") return { name, why: `does not answer at ${probe.address}` };
          return { name, why: `at ${probe.address} is stopping, or its database does not answer` };
        }),
      );
      return answers.filter((answer) => answer !== undefined);
    },
    close: () => {
      for (const client of Object.values(clients)) client.close();
      for (const { probe } of probes) probe.close();
    },
  };
}
