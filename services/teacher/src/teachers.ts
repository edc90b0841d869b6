/** The teachers of this process, one a profile, made when first asked. */
import { TutelageError } from "@tutelage/platform/errors";
import type { Logger } from "@tutelage/platform/log";
import type { ProfiledTeacher } from "./caller.js";
import type { TeacherProfileSettings } from "./profile.js";
import { EmbeddedTeacher } from "./providers/embedded.js";
import { OpenAiTeacher } from "./providers/openai.js";
import { Weather } from "./weather.js";
import type { WeatherStore } from "./weatherstore.js";

export class Teachers {
  private readonly made = new Map<string, ProfiledTeacher>();

  constructor(
    readonly profiles: ReadonlyMap<string, TeacherProfileSettings>,
    private readonly place: { home: string; python: string },
    private readonly weather: WeatherStore,
    private readonly log: Logger,
  ) {}

  /** Throws when the operator offers no such profile. */
  get(name: string): ProfiledTeacher {
    const known = this.made.get(name);
    if (known !== undefined) return known;
    const profile = this.profiles.get(name);
    if (profile === undefined) {
      throw new TutelageError(
        "invalid_argument",
        `teacher_profile: there is no "${name}"; there are ${[...this.profiles.keys()].join(", ")}`,
        {
          reason: "teacher_profile_not_found",
          fields: [{ field: "teacher_profile", description: `must be one of ${[...this.profiles.keys()].join(", ")}` }],
        },
      );
    }
    const teacher = {
      profile,
      teacher:
        profile.provider === "embedded"
          ? new EmbeddedTeacher(profile, this.place, this.log)
          : new OpenAiTeacher(profile),
      weather: new Weather(profile, this.weather, this.log),
      underWay: new Map(),
    };
    this.made.set(name, teacher);
    return teacher;
  }

  /** Whom to ask while a profile's provider is away: one or none. */
  fallbackOf(profile: TeacherProfileSettings): ProfiledTeacher[] {
    if (profile.provider === "embedded" || profile.fallback === undefined) return [];
    return [this.get(profile.fallback)];
  }

  async close(): Promise<void> {
    await Promise.all([...this.made.values()].map(({ teacher }) => teacher.close()));
  }
}
